use super::*;
use cmk_crypto::aead::Cipher;
use cmk_crypto::commitment::Commitment;
use cmk_crypto::key::SecretKey;
use cmk_crypto::nonce::{Moment, NonceSource};
use cmk_crypto::run::Fresh;

const MOMENT: Moment = Moment { pid: 1, now: 1, statement: 1 };
const TENANT: &[u8] = b"acme";
const TOKEN: Token = Token { index_key: [0xA1; 4], value: [0xB2; 16] };
const NEXT: Token = Token { index_key: [0xC3; 4], value: [0xD4; 16] };
const RULE: TokenRule = TokenRule { normalization: Normalization::None, is_shortened: false };
const ONE: Tokens = Tokens { rule: RULE, first: TOKEN, next: None };
const TWO: Tokens = Tokens { rule: RULE, first: TOKEN, next: Some(NEXT) };
const SUITES: [(u8, Option<Tokens>, usize); 3] =
    [(SUITE_2, None, 74), (SUITE_3, Some(ONE), 94), (SUITE_4, Some(TWO), 114)];

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

fn binding<'a>(tenant: &'a [u8], label: &[u8], tokens: Option<Tokens>) -> ColumnBinding<'a> {
    let (tenant_tag, column) = (TenantTag::of(tenant), ColumnTag::of(label));
    ColumnBinding { tenant, tenant_tag, column, tokens }
}

impl Fixture {
    fn seal(&mut self, binding: &ColumnBinding<'_>, plaintext: &[u8]) -> Vec<u8> {
        let mut out = vec![0; plaintext.len() + overhead(binding.tokens.as_ref())];
        let Self { cipher, dek_id, nonces } = self;
        let fresh = Fresh { cipher, nonces, moment: MOMENT };
        seal(fresh, *dek_id, binding, plaintext, &mut out).unwrap();
        out
    }

    /// Envelopes of all suites.
    fn sealed(&mut self, plaintext: &[u8]) -> [Vec<u8>; 3] {
        SUITES.map(|(_, tokens, _)| self.seal(&binding(TENANT, b"users.ssn", tokens), plaintext))
    }

    /// Envelopes of suites 3 and 4, with all rules that there are.
    fn with_rules(&mut self, plaintext: &[u8]) -> Vec<(Tokens, Vec<u8>)> {
        let mut all = Vec::new();
        for normalization in Normalization::ALL {
            for is_shortened in [false, true] {
                for tokens in [ONE, TWO] {
                    let tokens =
                        Tokens { rule: TokenRule { normalization, is_shortened }, ..tokens };
                    let binding = binding(TENANT, b"users.ssn", Some(tokens));
                    all.push((tokens, self.seal(&binding, plaintext)));
                }
            }
        }
        all
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
        for (sealed, (suite, _, overhead)) in f.sealed(plaintext).iter().zip(SUITES) {
            assert_eq!((sealed[1], sealed.len()), (suite, plaintext.len() + overhead));
            assert_eq!(f.open(TENANT, sealed).unwrap(), plaintext);
        }
        for (_, sealed) in f.with_rules(plaintext) {
            assert_eq!(f.open(TENANT, &sealed).unwrap(), plaintext);
        }
    }
    // The AAD of such a tenant is longer than what is built on the stack.
    let long = [b't'; 1000];
    let sealed = f.seal(&binding(&long, b"", Some(TWO)), b"value");
    assert_eq!(f.open(&long, &sealed).unwrap(), b"value");
}

/// The bytes that name a suite, and the rule of one with tokens.
fn is_suite(byte: u8) -> bool {
    byte == 0x02 || matches!(byte & 0x0F, 3 | 4) && byte & 0x40 == 0
}

#[test]
fn every_flipped_bit_is_refused() {
    let mut f = fixture();
    let plaintext = b"the plaintext, longer than what two tokens take";
    let rules = f.with_rules(plaintext).into_iter().map(|(_, sealed)| sealed);
    for sealed in rules.chain(f.sealed(plaintext)) {
        for bit in 0..sealed.len() * 8 {
            let mut bad = sealed.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let expected = match bit / 8 {
                0 => Reason::NotAnEnvelope,
                1 if !is_suite(bad[1]) => Reason::UnknownSuite,
                // Of another suite or rule, and not authentic.
                _ => Reason::NotAuthentic,
            };
            assert_eq!(f.refusal(TENANT, &bad), expected, "bit {bit}");
        }
    }
}

#[test]
fn every_other_suite_byte_is_refused() {
    let mut f = fixture();
    for sealed in f.sealed(&[7; 60]) {
        for suite in (0..=u8::MAX).filter(|suite| *suite != sealed[1]) {
            let mut bad = sealed.clone();
            bad[1] = suite;
            let known = is_suite(suite);
            let expected = if known { Reason::NotAuthentic } else { Reason::UnknownSuite };
            assert_eq!(f.refusal(TENANT, &bad), expected, "{suite:#x}");
            assert_eq!(header(&bad).is_some(), known, "{suite:#x}");
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
    let plaintext = b"the same, longer than what two tokens take";
    let first = Token { index_key: [1; 4], value: [2; 16] };
    let next = Token { index_key: [3; 4], value: [4; 16] };
    let others = [
        None,
        Some(Tokens { rule: RULE, first, next: None }),
        Some(Tokens { rule: RULE, first, next: Some(next) }),
    ];
    for (sealed, tokens) in f.sealed(plaintext).into_iter().zip(others) {
        let other = f.seal(&binding(b"bolt", b"users.email", tokens), plaintext);
        let names = [(18, 26), (26, 34)];
        let tokens = [(34, 38), (38, 54), (34, 54), (54, 58), (58, 74), (54, 74), (34, 74)];
        for (from, to) in names.into_iter().chain(tokens).chain([(34, 58), (54, 78), (74, 98)]) {
            let mut swapped = sealed.clone();
            assert_ne!(swapped[from..to], other[from..to], "nothing would be swapped");
            swapped[from..to].copy_from_slice(&other[from..to]);
            assert_eq!(f.refusal(TENANT, &swapped), Reason::NotAuthentic, "{from}..{to}");
        }
    }
}

#[test]
fn two_tokens_cannot_be_exchanged_nor_one_left_out_or_added() {
    let mut f = fixture();
    let [plain, one, two] = f.sealed(b"value");
    let (names, tokens, rest) = (&two[..34], &two[34..74], &two[74..]);
    let exchanged = [names, &tokens[20..], &tokens[..20], rest].concat();
    let mut without_next = [names, &tokens[..20], rest].concat();
    without_next[1] = SUITE_3;
    let mut without_first = [names, &tokens[20..], rest].concat();
    without_first[1] = SUITE_3;
    let mut without_both = [names, rest].concat();
    without_both[1] = SUITE_2;
    let mut with_one = [&plain[..34], &tokens[..20], &plain[34..]].concat();
    with_one[1] = SUITE_3;
    let mut with_two = [&one[..54], &tokens[20..], &one[54..]].concat();
    with_two[1] = SUITE_4;
    for bad in [exchanged, without_next, without_first, without_both, with_one, with_two] {
        assert_eq!(f.refusal(TENANT, &bad), Reason::NotAuthentic);
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
    let [sealed, ..] = f.sealed(b"value");
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
fn a_header_names_key_tenant_column_and_tokens() {
    let mut f = fixture();
    for (sealed, (suite, tokens, _)) in f.sealed(b"value").into_iter().zip(SUITES) {
        let envelope = ColumnEnvelope::parse(&sealed).unwrap();
        let expected = Header {
            suite,
            dek_id: f.dek_id,
            tenant: TenantTag::of(TENANT),
            column: ColumnTag::of(b"users.ssn"),
            tokens,
            nonce: *envelope.nonce(),
        };
        assert_eq!((envelope.header(), envelope.tokens()), (expected, tokens));
        assert_eq!(header(&sealed), Some(expected));
        assert_eq!(envelope.plaintext_len(), 5);
        let nonce_at = sealed.len() - 5 - 16 - 24;
        assert_eq!(envelope.nonce()[..], sealed[nonce_at..nonce_at + 24]);
    }
}

#[test]
fn a_header_says_how_its_tokens_were_made() {
    let mut f = fixture();
    for (tokens, sealed) in f.with_rules(b"value") {
        let header = header(&sealed).unwrap();
        assert_eq!((header.tokens, header.suite), (Some(tokens), sealed[1]));
        let suite = if tokens.next.is_some() { SUITE_4 } else { SUITE_3 };
        assert_eq!(header.suite & 0x0F, suite);
        assert_eq!(header.suite & 0x80 != 0, tokens.rule.is_shortened);
        assert_eq!(header.suite >> 4 & 7, tokens.rule.normalization as u8);
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
    const LOWER_3: u8 = 0x13;
    const SHORTENED_4: u8 = 0xB4;
    let long = [0; 200];
    for (start, expected) in [
        (&[][..], Reason::NotAnEnvelope),
        (b"plain text", Reason::NotAnEnvelope),
        (&[MAGIC], Reason::NotAnEnvelope),
        (&[MAGIC, SUITE_2], Reason::NotAnEnvelope),
        (&[MAGIC, SUITE_3], Reason::NotAnEnvelope),
        (&[MAGIC, SUITE_4], Reason::NotAnEnvelope),
        (&[MAGIC, LOWER_3], Reason::NotAnEnvelope),
        (&[MAGIC, SHORTENED_4], Reason::NotAnEnvelope),
        (&[MAGIC, 0x12], Reason::UnknownSuite),
        (&[MAGIC, 0x82], Reason::UnknownSuite),
        (&[MAGIC, 0x43], Reason::UnknownSuite),
        (&[MAGIC, 0xF4], Reason::UnknownSuite),
        (&[MAGIC, 5], Reason::UnknownSuite),
        (&[MAGIC, crate::SUITE_1], Reason::UnknownSuite),
        (&[MAGIC, SUITE_PROBE], Reason::UnknownSuite),
        (&[MAGIC, 0], Reason::UnknownSuite),
    ] {
        assert_eq!(ColumnEnvelope::parse(start).unwrap_err().reason, expected);
        assert_eq!(header(start), None);
        let known = matches!(start, [MAGIC, SUITE_2 | SUITE_3 | SUITE_4 | LOWER_3 | SHORTENED_4]);
        assert_eq!(header(&[start, &long].concat()).is_some(), known, "{start:?} and zeros");
    }
}

#[test]
fn sealing_twice_gives_different_bytes_and_the_same_names() {
    let mut f = fixture();
    let (first, second) = (f.sealed(b"same"), f.sealed(b"same"));
    for ((a, b), nonce_at) in first.iter().zip(&second).zip([34, 54, 74]) {
        assert_eq!(a[..nonce_at], b[..nonce_at]);
        assert_ne!(a[nonce_at..nonce_at + 24], b[nonce_at..nonce_at + 24]);
    }
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
    for (_, tokens, least) in SUITES {
        let binding = binding(TENANT, b"users.ssn", tokens);
        for room in [0, 33, 57, 73, 74, 93, 94, 113, 114, least + 4, least + 6] {
            let mut out = vec![0; room];
            let fresh = Fresh { cipher: &cipher, nonces: &mut nonces, moment: MOMENT };
            let sealed = seal(fresh, dek_id, &binding, b"value", &mut out);
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
