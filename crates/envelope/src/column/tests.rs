use super::*;
use cmk_crypto::commitment::Commitment;
use cmk_crypto::key::SecretKey;

const TENANT: &[u8] = b"acme";
const TOKEN: Token = Token { index_key: [0xA1; 4], value: [0xB2; 16] };

struct Fixture {
    cipher: Cipher,
    dek_id: DekId,
    nonces: NonceSource,
}

fn fixture() -> Fixture {
    let key = SecretKey::generate().unwrap();
    let dek_id = Commitment::to(&key, TENANT).dek_id();
    Fixture { cipher: Cipher::new(&key), dek_id, nonces: NonceSource::new() }
}

fn binding<'a>(tenant: &'a [u8], label: &[u8], token: Option<Token>) -> ColumnBinding<'a> {
    let (tenant_tag, column) = (TenantTag::of(tenant), ColumnTag::of(label));
    ColumnBinding { tenant, tenant_tag, column, token }
}

impl Fixture {
    fn seal(&mut self, binding: &ColumnBinding<'_>, plaintext: &[u8]) -> Vec<u8> {
        let mut out = vec![0; plaintext.len() + overhead(binding.token.is_some())];
        let Self { cipher, dek_id, nonces } = self;
        let moment = Moment { pid: 1, now: 1 };
        seal(cipher, *dek_id, nonces, moment, binding, plaintext, &mut out).unwrap();
        out
    }

    /// Envelopes of both suites.
    fn sealed(&mut self, plaintext: &[u8]) -> [Vec<u8>; 2] {
        [None, Some(TOKEN)].map(|token| self.seal(&binding(TENANT, b"users.ssn", token), plaintext))
    }

    fn open(&self, tenant: &[u8], bytes: &[u8]) -> Result<Vec<u8>> {
        let envelope = ColumnEnvelope::parse(bytes)?;
        let mut out = vec![0; envelope.plaintext_len()];
        envelope.open(&self.cipher, tenant, &mut out)?;
        Ok(out)
    }

    fn refusal(&self, tenant: &[u8], bytes: &[u8]) -> Reason {
        self.open(tenant, bytes).unwrap_err().reason
    }
}

#[test]
fn opens_what_it_sealed() {
    let mut f = fixture();
    for plaintext in [&b""[..], b"x", &[7; 1000]] {
        for (sealed, overhead) in f.sealed(plaintext).iter().zip([74, 94]) {
            assert_eq!(sealed.len(), plaintext.len() + overhead);
            assert_eq!(f.open(TENANT, sealed).unwrap(), plaintext);
        }
    }
    // The AAD of such a tenant is longer than what is built on the stack.
    let long = [b't'; 1000];
    let sealed = f.seal(&binding(&long, b"", Some(TOKEN)), b"value");
    assert_eq!(f.open(&long, &sealed).unwrap(), b"value");
}

#[test]
fn every_flipped_bit_is_refused() {
    let mut f = fixture();
    for sealed in f.sealed(b"the plaintext, longer than what a token takes") {
        for bit in 0..sealed.len() * 8 {
            let mut bad = sealed.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let expected = match (bit / 8, bad[1]) {
                (0, _) => Reason::NotAnEnvelope,
                // The two suites are one bit apart: parsed as the other one, and not authentic.
                (1, SUITE_2 | SUITE_3) => Reason::NotAuthentic,
                (1, _) => Reason::UnknownSuite,
                _ => Reason::NotAuthentic,
            };
            assert_eq!(f.refusal(TENANT, &bad), expected, "bit {bit}");
        }
    }
}

#[test]
fn every_truncation_and_extension_is_refused() {
    let mut f = fixture();
    for sealed in f.sealed(b"the plaintext") {
        let least = sealed.len() - b"the plaintext".len();
        for len in 0..sealed.len() {
            let short = len < least;
            let expected = if short { Reason::NotAnEnvelope } else { Reason::NotAuthentic };
            assert_eq!(f.refusal(TENANT, &sealed[..len]), expected, "{len} bytes");
        }
        assert_eq!(f.refusal(TENANT, &[&sealed[..], b"\0"].concat()), Reason::NotAuthentic);
    }
}

#[test]
fn nothing_of_a_header_can_be_swapped_for_that_of_another_envelope() {
    let mut f = fixture();
    let [plain, with_token] = f.sealed(b"same");
    let other_token = Some(Token { index_key: [1; 4], value: [2; 16] });
    for (sealed, token) in [(plain, None), (with_token, other_token)] {
        let other = f.seal(&binding(b"bolt", b"users.email", token), b"same");
        let fields = [(18, 26), (26, 34), (34, 38), (38, 54), (34, 58), (54, 78)];
        for (from, to) in fields {
            let mut swapped = sealed.clone();
            assert_ne!(swapped[from..to], other[from..to], "nothing would be swapped");
            swapped[from..to].copy_from_slice(&other[from..to]);
            assert_eq!(f.refusal(TENANT, &swapped), Reason::NotAuthentic, "{from}..{to}");
        }
    }
}

#[test]
fn an_envelope_opens_for_its_tenant_only() {
    let mut f = fixture();
    for sealed in f.sealed(b"value") {
        for tenant in [&b""[..], b"acm", b"acme\0", b"Acme", b"bolt", b"acmeusers.ssn"] {
            assert_eq!(f.refusal(tenant, &sealed), Reason::NotAuthentic);
        }
    }
}

#[test]
fn a_suite_1_envelope_is_bound_to_other_bytes_than_one_of_a_column() {
    let mut f = fixture();
    let [sealed, _] = f.sealed(b"value");
    // What the column's header has after the dek_id, given to suite 1 as aad.
    let mut cut = [&[MAGIC, crate::SUITE_1][..], &sealed[2..18], &sealed[34..]].concat();
    let envelope = crate::Envelope::parse(&cut).unwrap();
    let mut out = vec![0; 5];
    let aad = &sealed[18..34];
    let opened = envelope.open(&f.cipher, &Binding { tenant: TENANT, aad }, &mut out);
    assert_eq!(opened.unwrap_err().reason, Reason::NotAuthentic);
    assert_eq!(f.refusal(TENANT, &cut), Reason::UnknownSuite);
    cut[1] = SUITE_2;
    assert_eq!(f.refusal(TENANT, &cut), Reason::NotAnEnvelope);
}

#[test]
fn a_header_names_key_tenant_column_and_token() {
    let mut f = fixture();
    let [plain, with_token] = f.sealed(b"value");
    for (sealed, suite, token) in [(plain, SUITE_2, None), (with_token, SUITE_3, Some(TOKEN))] {
        let envelope = ColumnEnvelope::parse(&sealed).unwrap();
        let expected = Header {
            suite,
            dek_id: f.dek_id,
            tenant: TenantTag::of(TENANT),
            column: ColumnTag::of(b"users.ssn"),
            token,
            nonce: *envelope.nonce(),
        };
        assert_eq!(envelope.header(), expected);
        assert_eq!(header(&sealed), Some(expected));
        assert_eq!(envelope.plaintext_len(), 5);
        let nonce_at = sealed.len() - 5 - 16 - 24;
        assert_eq!(envelope.nonce()[..], sealed[nonce_at..nonce_at + 24]);
    }
}

#[test]
fn the_first_bytes_of_a_value_say_what_the_whole_says() {
    let mut f = fixture();
    for sealed in f.sealed(&[7; 300]) {
        for len in 0..sealed.len() {
            let value = &sealed[..len];
            let slice = &value[..len.min(HEADER_MAX)];
            let whole = ColumnEnvelope::parse(value).ok().map(|envelope| envelope.header());
            assert_eq!(header(slice), whole, "{len} bytes");
        }
        assert!(header(&sealed[..HEADER_MAX]).is_some());
    }
}

#[test]
fn what_is_no_envelope_of_a_column_is_refused() {
    let long = [0; 200];
    for (start, expected) in [
        (&[][..], Reason::NotAnEnvelope),
        (b"plain text", Reason::NotAnEnvelope),
        (&[MAGIC], Reason::NotAnEnvelope),
        (&[MAGIC, SUITE_2], Reason::NotAnEnvelope),
        (&[MAGIC, SUITE_3], Reason::NotAnEnvelope),
        (&[MAGIC, crate::SUITE_1], Reason::UnknownSuite),
        (&[MAGIC, SUITE_PROBE], Reason::UnknownSuite),
        (&[MAGIC, 0], Reason::UnknownSuite),
    ] {
        assert_eq!(ColumnEnvelope::parse(start).unwrap_err().reason, expected);
        assert_eq!(header(start), None);
        let known = matches!(start, [MAGIC, SUITE_2 | SUITE_3]);
        assert_eq!(header(&[start, &long].concat()).is_some(), known, "{start:?} and zeros");
    }
}

#[test]
fn sealing_twice_gives_different_bytes_and_the_same_names() {
    let mut f = fixture();
    let [(a, _), (b, _)] = [f.sealed(b"same"), f.sealed(b"same")].map(|[a, b]| (a, b));
    assert_ne!(a, b);
    assert_eq!(a[..34], b[..34]);
}

#[test]
fn the_tags_of_a_tenant_and_a_column_of_the_same_name_differ() {
    assert_ne!(TenantTag::of(b"users").0, ColumnTag::of(b"users").0);
    assert_ne!(TenantTag::of(b"users"), TenantTag::of(b"Users"));
    assert_ne!(ColumnTag::of(b""), ColumnTag::of(b"\0"));
}

#[test]
fn room_of_another_length_than_the_envelope_is_refused() {
    let Fixture { cipher, dek_id, mut nonces } = fixture();
    for (token, least) in [(None, 74), (Some(TOKEN), 94)] {
        let binding = binding(TENANT, b"users.ssn", token);
        for room in [0, 33, 57, 73, 74, 93, 94, least + 4, least + 6] {
            let mut out = vec![0; room];
            let moment = Moment { pid: 1, now: 1 };
            let sealed = seal(&cipher, dek_id, &mut nonces, moment, &binding, b"value", &mut out);
            assert_eq!(sealed.unwrap_err().reason, Reason::TooLarge, "{room} bytes");
        }
    }
}

#[test]
fn a_failed_opening_writes_nothing() {
    let mut f = fixture();
    for sealed in f.sealed(b"value") {
        let mut out = [7; 5];
        let envelope = ColumnEnvelope::parse(&sealed).unwrap();
        assert!(envelope.open(&f.cipher, b"bolt", &mut out).is_err());
        assert_eq!(out, [7; 5]);
        for room in [4, 6] {
            let opened = envelope.open(&f.cipher, TENANT, &mut vec![0; room]);
            assert_eq!(opened.unwrap_err().reason, Reason::NotAuthentic);
        }
    }
}
