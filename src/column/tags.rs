//! Tags of tenants and columns. One statement's rows are often one tenant's, and all of one column,
//! so the last of each is remembered.

use cmk_envelope::column::{ColumnTag, TenantTag};
use std::cell::RefCell;

/// Longer names are no tenant's, and no column's: they are not remembered.
const NAME_MAX: usize = 255;

type Last<T> = RefCell<Option<(Box<[u8]>, T)>>;

thread_local! {
    static LAST_TENANT: Last<TenantTag> = const { RefCell::new(None) };
    static LAST_COLUMN: Last<ColumnTag> = const { RefCell::new(None) };
}

#[inline]
pub fn of_tenant(name: &[u8]) -> TenantTag {
    LAST_TENANT.with(|last| remembered(last, name, TenantTag::of))
}

/// By the column's label.
#[inline]
pub fn of_column(label: &[u8]) -> ColumnTag {
    LAST_COLUMN.with(|last| remembered(last, label, ColumnTag::of))
}

#[inline]
fn remembered<T: Copy>(last: &Last<T>, name: &[u8], make: fn(&[u8]) -> T) -> T {
    if let Some((of, tag)) = &*last.borrow()
        && **of == *name
    {
        return *tag;
    }
    let tag = make(name);
    if name.len() <= NAME_MAX {
        last.replace(Some((name.into(), tag)));
    }
    tag
}
