//! The providers that this build has.

use crate::provider::Provider;

/// The one registration table: one row, and one Cargo feature, per provider.
pub static PROVIDERS: &[&dyn Provider] = &[
    #[cfg(feature = "local")]
    &crate::local::Local,
    #[cfg(feature = "aws")]
    &crate::aws::Aws,
];

/// The provider that a key URI names, if this build has it.
pub fn of_uri(uri: &str) -> Option<&'static dyn Provider> {
    let (scheme, _) = uri.split_once(':')?;
    PROVIDERS.iter().copied().find(|provider| provider.scheme() == scheme)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn each_feature_registers_a_scheme_of_its_own() {
        let schemes: HashSet<_> = PROVIDERS.iter().map(|provider| provider.scheme()).collect();
        let features = [cfg!(feature = "local"), cfg!(feature = "aws")];
        assert_eq!(schemes.len(), features.into_iter().filter(|on| *on).count());
        assert_eq!(schemes.len(), PROVIDERS.len());
    }
}
