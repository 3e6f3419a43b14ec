-- What the DBA does, once, while the application runs. The application's role is customers_app.
CREATE EXTENSION IF NOT EXISTS cmk_encrypt;

-- Each tenant brings a key. In production: 'arn:aws:kms:…', see docs/onboarding.md.
SELECT cmk.register_tenant('acme', 'local:acme');
SELECT cmk.register_tenant('globex', 'local:globex');
SELECT cmk.grant_access('acme', 'customers_app');
SELECT cmk.grant_access('globex', 'customers_app');

-- The application sees plaintext. Everybody else, dumps and replicas have ciphertext.
ALTER ROLE customers_app SET cmk_encrypt.output = 'plaintext';

-- Sealing what is there takes a right to encrypt, for as long as that lasts.
SELECT cmk.grant_access('acme', current_user::text, decrypt => false);
SELECT cmk.grant_access('globex', current_user::text, decrypt => false);

-- Its index on the number becomes one of tokens, and serves the same queries.
SELECT cmk.protect_column('customer', 'ssn', tenant_column => 'tenant', searchable => true);
SELECT cmk.protect_column('customer', 'note', tenant_column => 'tenant');
CALL cmk.seal_table('customer');

SELECT cmk.revoke_access('acme', current_user::text);
SELECT cmk.revoke_access('globex', current_user::text);
