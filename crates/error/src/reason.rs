//! Every way an operation can fail, in one table, and what each says about the tenant's key.

/// The SQLSTATEs this extension raises. Classes 08, 57P and 0A are left out on purpose: connection
/// pools discard healthy connections when they see them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SqlState {
    /// 22001 string_data_right_truncation
    StringDataRightTruncation,
    /// 22004 null_value_not_allowed
    NullValueNotAllowed,
    /// 22021 character_not_in_repertoire
    CharacterNotInRepertoire,
    /// 22023 invalid_parameter_value
    InvalidParameterValue,
    /// 22P02 invalid_text_representation
    InvalidTextRepresentation,
    /// 22P03 invalid_binary_representation
    InvalidBinaryRepresentation,
    /// 23502 not_null_violation
    NotNullViolation,
    /// 23514 check_violation
    CheckViolation,
    /// 25006 read_only_sql_transaction
    ReadOnlySqlTransaction,
    /// 2BP01 dependent_objects_still_exist
    DependentObjectsStillExist,
    /// 39P01 trigger_protocol_violated
    TriggerProtocolViolated,
    /// 39000 external_routine_invocation_exception, which pgcrypto raises for the same condition
    ExternalRoutineInvocation,
    /// 42501 insufficient_privilege
    InsufficientPrivilege,
    /// 42704 undefined_object
    UndefinedObject,
    /// 42710 duplicate_object
    DuplicateObject,
    /// 42809 wrong_object_type
    WrongObjectType,
    /// 53200 out_of_memory
    OutOfMemory,
    /// 53000 insufficient_resources
    InsufficientResources,
    /// 55000 object_not_in_prerequisite_state
    ObjectNotInPrerequisiteState,
    /// 55P03 lock_not_available
    LockNotAvailable,
    /// 58000 system_error
    SystemError,
    /// F0000 config_file_error
    ConfigFileError,
}

/// The state of a tenant's key as last seen; decides what happens to cached data keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum KeyState {
    /// KMS did what it was asked.
    Usable,
    /// The owner took the key away: cached data keys are purged now.
    Revoked,
    /// KMS did not answer in time or failed: cached data keys serve until their hard TTL.
    Unreachable,
    /// KMS refused for load: as unreachable.
    Throttled,
    /// Our side is wrong: as unreachable.
    Misconfigured,
}

impl KeyState {
    /// Every state, in order.
    pub const ALL: [Self; 5] =
        [Self::Usable, Self::Revoked, Self::Unreachable, Self::Throttled, Self::Misconfigured];

    /// As SQL shows it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Usable => "usable",
            Self::Revoked => "revoked",
            Self::Unreachable => "unreachable",
            Self::Throttled => "throttled",
            Self::Misconfigured => "misconfigured",
        }
    }
}

macro_rules! reasons {
    ($(
        $(#[$doc:meta])*
        $variant:ident = $name:literal, $state:ident, $message:literal, $hint:literal;
    )*) => {
        /// A machine-readable cause. Names are stable: they are part of the SQL interface.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[$doc])* #[doc = $message] $variant,)* }

        impl Reason {
            /// Every reason, in the order of the table.
            pub const ALL: &'static [Reason] = &[$(Reason::$variant,)*];

            /// The one table: name, SQLSTATE, message and hint. `%` in a message stands for the
            /// tenant.
            pub const fn entry(self) -> Entry {
                match self {
                    $(Reason::$variant => Entry {
                        name: $name,
                        sqlstate: SqlState::$state,
                        message: $message,
                        hint: $hint,
                    },)*
                }
            }
        }
    };
}

/// One row of the error table.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// As it stands in DETAIL: `reason=NAME`.
    pub name: &'static str,
    /// The error's class, which drivers and pools look at.
    pub sqlstate: SqlState,
    /// The primary message; `%` stands for the tenant.
    pub message: &'static str,
    /// What to do.
    pub hint: &'static str,
}

reasons! {
    TenantPending = "tenant_pending", ObjectNotInPrerequisiteState,
        "tenant % is registered but not active",
        "Ask the tenant to apply the key policy, then call cmk.activate_tenant().";
    TenantSuspended = "tenant_suspended", ObjectNotInPrerequisiteState,
        "tenant % is suspended",
        "A database administrator suspended this tenant; cmk.resume_tenant() lifts it.";
    TenantShredded = "tenant_shredded", ObjectNotInPrerequisiteState,
        "the data keys of tenant % were destroyed",
        "Destroying a data key is final, be it by cmk.shred_tenant or by cmk.retire_keys: values sealed under it can never be decrypted again.";
    KeyAccessDenied = "key_access_denied", ObjectNotInPrerequisiteState,
        "the key of tenant % does not allow us to use it",
        "The key's owner has withdrawn access or the key policy lacks our principal or this encryption context; with cause=assume_role, the assumed role does not trust us under this external id or our own policy lacks sts:AssumeRole. The owner can restore access; what the owner has only just allowed is not in force everywhere yet: AWS needs up to five minutes.";
    KeyDisabled = "key_disabled", ObjectNotInPrerequisiteState,
        "the key of tenant % is disabled",
        "The key's owner can enable it again; the data is intact.";
    KeyPendingDeletion = "key_pending_deletion", ObjectNotInPrerequisiteState,
        "the key of tenant % is scheduled for deletion",
        "The key's owner can cancel the deletion within the waiting period and enable the key; after that the data is lost for good.";
    KeyNotFound = "key_not_found", ObjectNotInPrerequisiteState,
        "the key of tenant % does not exist",
        "Check the key's ARN and Region, or the name of its key file: key=next in DETAIL means the key that the tenant is to move to. A key that was deleted leaves the tenant's values sealed until the same key is back.";
    KeyInvalidState = "key_invalid_state", ObjectNotInPrerequisiteState,
        "the key of tenant % is not in a usable state",
        "Look at the key's state in the owner's account (imported material may have expired).";
    DataKeysMissing = "data_keys_missing", ObjectNotInPrerequisiteState,
        "the registry lacks data keys of tenant %",
        "Restore cmk.data_key from the backup that cmk.tenant came from (pg_restore --data-only --schema=cmk --table=data_key); cmk.check() tells which are missing. No new data key is made until then.";
    TenantRowMissing = "tenant_row_missing", ObjectNotInPrerequisiteState,
        "the registry has data keys of tenant %, but lacks its row in cmk.tenant",
        "Restore cmk.tenant from the backup that cmk.data_key came from (pg_restore --data-only --schema=cmk --table=tenant); registered anew, the tenant would lose its values.";
    RegistryCopied = "registry_copied", ObjectNotInPrerequisiteState,
        "the key registry was copied from another database",
        "CREATE DATABASE ... TEMPLATE copies grants and states, and later changes of the original do not arrive. Look at cmk.access and cmk.tenants, then call cmk.adopt_registry() as a superuser.";
    CannotPrepare = "cannot_prepare", ObjectNotInPrerequisiteState,
        "a transaction that changed the key registry cannot be prepared",
        "Commit it, or roll it back: prepared, it would keep the registry locked for as long as anybody likes.";
    KeysWouldBeLost = "keys_would_be_lost", DependentObjectsStillExist,
        "this would destroy data keys",
        "All values sealed under them would be lost for good. Whoever means that calls cmk.destroy_data_keys(current_database()) first.";
    TenantNameFixed = "tenant_name_fixed", DependentObjectsStillExist,
        "tenant % cannot be renamed",
        "Its name is bound into every value and into the wrapping of its data keys. Name tenants by an id that never changes, and keep what people call them in a table of your own.";
    NotATriggerCall = "not_a_trigger_call", TriggerProtocolViolated,
        "trigger functions can only be called as triggers",
        "The triggers of cmk_encrypt call it.";
    NoGrant = "no_grant", InsufficientPrivilege,
        "permission denied for tenant %",
        "A database administrator can allow it with cmk.grant_access(tenant, role).";
    TenantMismatch = "tenant_mismatch", InsufficientPrivilege,
        "permission denied for tenant %: the session names no such tenant",
        "The role's grant is bound: SET LOCAL cmk_encrypt.tenant to the tenant whose request this transaction serves, and touch no other tenant's values in it.";
    RegistryWrite = "registry_write", InsufficientPrivilege,
        "permission denied for the key registry",
        "Change it through the functions of schema cmk, or as the role that owns the extension.";
    AuditTrail = "audit_trail", InsufficientPrivilege,
        "the audit trail cannot be changed",
        "Events are added by the functions of schema cmk, and by restoring a dump; nobody changes or deletes them.";
    SecurityRestricted = "security_restricted_operation", InsufficientPrivilege,
        "cannot decrypt within a security-restricted operation",
        "ANALYZE, REFRESH MATERIALIZED VIEW and index builds would store the plaintext; drop the decrypting expression from them.";
    UnknownTenant = "unknown_tenant", UndefinedObject,
        "tenant % is not registered",
        "Tenant names are case-sensitive; cmk.register_tenant() adds one, the view cmk.tenants lists them.";
    NotInstalled = "not_installed", UndefinedObject,
        "the key registry does not exist in this database",
        "Run CREATE EXTENSION cmk_encrypt.";
    RegistryUnusable = "registry_unusable", SystemError,
        "the key registry cannot be used",
        "Its tables are not those of this version of the extension; run ALTER EXTENSION cmk_encrypt UPDATE, or restore schema cmk.";
    UnknownRole = "unknown_role", UndefinedObject,
        "role does not exist",
        "Give the role's name as pg_roles shows it; a number is a name like any other.";
    TenantExists = "tenant_exists", DuplicateObject,
        "tenant % is already registered",
        "A tenant is registered once. For a new data key use cmk.rotate_tenant(), for another key or a replica of it cmk.rewrap_tenant(), for another role or external id cmk.alter_tenant_options(); the name of a pending or shredded tenant is free after cmk.remove_tenant().";
    TenantBusy = "tenant_busy", LockNotAvailable,
        "another session is changing tenant %",
        "Look at the tenant in cmk.tenants when the other session is done, then decide whether your change is still wanted.";
    TenantStateConflict = "tenant_state_conflict", ObjectNotInPrerequisiteState,
        "tenant % is not in a state that allows this change",
        "DETAIL shows the tenant's state. To shred a tenant, suspend it first; only pending and shredded tenants are removed, and only suspended ones resumed.";
    RotationLimit = "rotation_limit", InvalidParameterValue,
        "limit of a rotation is not valid",
        "Give rotate_after as 0 to 10 years and rotate_after_values as 0 or more; 0 for never, null for what the server's settings say.";
    VerificationFailed = "verification_failed", ObjectNotInPrerequisiteState,
        "the key of tenant % does not do what it must",
        "DETAIL names the checks that failed; SELECT * FROM cmk.verify_tenant(tenant) says what was seen and what to do. Nothing was activated.";
    Confirmation = "confirmation", InvalidParameterValue,
        "the confirmation is not the name of tenant %",
        "Give the tenant's name again, confirm => tenant, to show whose data keys you mean.";
    ShredTooSoon = "shred_too_soon", ObjectNotInPrerequisiteState,
        "tenant % has not been suspended for long enough to be shredded",
        "cmk_encrypt.shred_delay says for how long it has to be; DETAIL says from when on. With immediately => true nobody waits, and the certificate says so.";
    KmsUnreachable = "kms_unreachable", SystemError,
        "KMS cannot be reached for tenant %",
        "Check the network path to KMS and its service health; retry later.";
    KmsTimeout = "kms_timeout", SystemError,
        "KMS did not answer in time for tenant %",
        "Check the network path to KMS; the limits are cmk_encrypt.kms_attempt_timeout and cmk_encrypt.kms_operation_timeout.";
    KmsServerError = "kms_server_error", SystemError,
        "KMS failed to serve tenant %",
        "KMS reported an internal error, an unavailable key store or an answer that makes no sense; retry later.";
    KmsThrottled = "kms_throttled", InsufficientResources,
        "KMS throttles calls for tenant %",
        "Retry later; a longer cmk_encrypt.cache_ttl or a larger KMS request quota lowers the call rate.";
    CallBudgetSpent = "call_budget_spent", InsufficientResources,
        "the KMS call budget of tenant % is spent",
        "Retry later; cmk_encrypt.tenant_call_budget limits the KMS calls for a tenant in a minute, and cmk.status counts them.";
    Credentials = "credentials", ConfigFileError,
        "the server has no valid AWS credentials for tenant %",
        "Give the PostgreSQL service an instance profile, web identity or environment credentials, and check role_arn and external_id in the options of the tenant's key.";
    KeyUnusable = "key_unusable", ConfigFileError,
        "the key of tenant % is not a symmetric encryption key",
        "Register a KMS key with key spec SYMMETRIC_DEFAULT and key usage ENCRYPT_DECRYPT.";
    KmsRejected = "kms_rejected", ConfigFileError,
        "KMS rejected the request for tenant %",
        "The request was malformed for this endpoint or key; check Region, endpoint and key ARN.";
    SettingsOverridden = "settings_overridden", ConfigFileError,
        "settings of cmk_encrypt were given for this session, which only the server's configuration may do",
        "Remove them from PGOPTIONS, ALTER ROLE and ALTER DATABASE, or put cmk_encrypt into shared_preload_libraries.";
    LoadedTooLate = "loaded_too_late", ConfigFileError,
        "cmk_encrypt cannot be loaded in the middle of a parallel query",
        "Put it into shared_preload_libraries or session_preload_libraries, or LOAD it first.";
    Endpoint = "endpoint", ConfigFileError,
        "the way to KMS is not usable as it is configured",
        "cmk_encrypt.kms_endpoint_url and cmk_encrypt.sts_endpoint_url, and what the server's environment says instead, are https URLs; http is accepted for loopback addresses only.";
    LocalKeysOff = "local_keys_off", ConfigFileError,
        "local keys are switched off on this server",
        "Set cmk_encrypt.local_keys = on and cmk_encrypt.local_key_directory in postgresql.conf; meant for development and demonstrations.";
    LocalKeyFile = "local_key_file", ConfigFileError,
        "the local key file of tenant % cannot be used",
        "It must be a regular file of exactly 32 bytes, owned by the server's user, with mode 0600 or 0400, in cmk_encrypt.local_key_directory.";
    ServicePrincipal = "service_principal", ConfigFileError,
        "the principal that key policies are to name is not known, or not usable",
        "Set cmk_encrypt.service_principal to the ARN of the IAM role or user whose credentials the server has, arn:PARTITION:iam::ACCOUNT:role/NAME, in the partition of the key.";
    SystemRandom = "system_random", SystemError,
        "the operating system gave no random bytes",
        "Nothing was encrypted; check the system's entropy source.";
    OutOfMemory = "out_of_memory", OutOfMemory,
        "not enough memory for the result",
        "Nothing was changed; process fewer or smaller values at once.";
    NotAuthentic = "not_authentic", ExternalRoutineInvocation,
        "value does not authenticate for tenant %",
        "The value was tampered with or truncated, or it was sealed with another aad.";
    UnknownDataKey = "unknown_data_key", ExternalRoutineInvocation,
        "no data key of tenant % opens this value",
        "It belongs to another tenant or database; cmk.inspect() tells. If the registry lost rows, restore cmk.data_key from a backup; of protected columns, cmk.dump_keys_needed() tells which are missing.";
    WrappedKeyRejected = "wrapped_key_rejected", ExternalRoutineInvocation,
        "the wrapped data key of tenant % does not unwrap under its key",
        "The row in cmk.data_key was altered or belongs to another tenant; restore it from a backup.";
    KmsAnswerMismatch = "kms_answer_mismatch", ExternalRoutineInvocation,
        "KMS answered for another key than that of tenant %",
        "The answer was discarded; check what stands between this server and KMS.";
    CommitmentMismatch = "commitment_mismatch", ExternalRoutineInvocation,
        "the unwrapped data key of tenant % is not the registered one",
        "The row in cmk.data_key was altered; restore it from a backup.";
    NotAnEnvelope = "not_an_envelope", InvalidBinaryRepresentation,
        "value is not a cmk_encrypt envelope",
        "Pass what cmk_encrypt() returned, whole and as bytea.";
    UnknownSuite = "unknown_suite", InvalidBinaryRepresentation,
        "value is an envelope of an unknown suite",
        "Values of protected columns are read by selecting the column, not by cmk_decrypt(), and the other way round. Any other suite was written by a newer version of cmk_encrypt: upgrade the extension.";
    TenantName = "tenant_name", InvalidParameterValue,
        "tenant name is not valid",
        "A tenant name has 1 to 255 bytes, no control or invisible formatting characters, and is not \"*\".";
    KeyUri = "key_uri", InvalidParameterValue,
        "key URI is not valid",
        "Pass a full KMS key ARN, arn:aws:kms:REGION:ACCOUNT:key/ID (no alias: it can be retargeted), or local:NAME, of a provider that this build has.";
    KeyOptions = "key_options", InvalidParameterValue,
        "options of the key are not valid",
        "They are a JSON object of texts. AWS keys take role_arn and external_id; local keys take none.";
    RoleArn = "role_arn", InvalidParameterValue,
        "role ARN is not valid",
        "Pass arn:aws:iam::ACCOUNT:role/NAME.";
    ExternalId = "external_id", InvalidParameterValue,
        "role_arn needs an external_id, and the other way round",
        "It has 2 to 1224 characters, letters, digits and _+=,.@:/-. Without one, another customer's role could be used for this tenant (the confused deputy).";
    NoKeyPolicy = "no_key_policy", WrongObjectType,
        "the key of tenant % has no policy that an owner could write",
        "A local key is a file of this server, so there is nobody to onboard. Register the tenant with the ARN of a KMS key.";
    OnboardingFormat = "onboarding_format", InvalidParameterValue,
        "there is no such format for onboarding",
        "Formats for keys in AWS KMS: guide, policy, cli, terraform, cloudformation.";
    AlreadySealed = "already_sealed", InvalidParameterValue,
        "value is sealed already",
        "It is an envelope of a registered data key, or one written as text; sealed again, it would come back as ciphertext. Whoever means that calls cmk_encrypt_nested(), and for a protected column sets cmk_encrypt.input = text. cmk.is_envelope() tells which values are envelopes.";
    TooLarge = "too_large", InvalidParameterValue,
        "value is too large to encrypt",
        "A PostgreSQL value holds less than 1 GiB and the envelope adds 58 to 114 bytes.";
    ReasonName = "reason_name", InvalidParameterValue,
        "not a reason that can be forgiven",
        "See the table of errors in the documentation.";
    TooManyNames = "too_many_names", InvalidParameterValue,
        "too many names in one call",
        "cmk.warm takes at most cmk_encrypt.cache_size tenants, forgive at most 256 reasons.";
    DatabaseName = "database_name", InvalidParameterValue,
        "this is not the name of the current database",
        "Give current_database(), to show that you know where you are.";
    AccessArgument = "access_argument", InvalidParameterValue,
        "neither encrypt nor decrypt is set",
        "Set encrypt, decrypt or both to true.";
    NotSealed = "not_sealed", CheckViolation,
        "a value of a protected column is not sealed",
        "Plaintext was about to be stored. The trigger \"~cmk_seal\" is disabled or missing, or another trigger changed the value after it: see cmk.protected_columns. While a dump is restored: SET cmk_encrypt.input = envelope.";
    ForeignEnvelope = "foreign_envelope", CheckViolation,
        "a value of a protected column was sealed for another tenant or column",
        "Such a value is sealed anew where it is inserted by a role with grants for both tenants, but not while session_replication_role is replica.";
    ProtectionLost = "protection_lost", ObjectNotInPrerequisiteState,
        "a protected column has lost its CHECK constraint",
        "The constraint says for which tenant its values are sealed. Nothing is stored until it is back: call cmk.protect_column() again, or cmk.unprotect_column().";
    TenantUnset = "tenant_unset", ObjectNotInPrerequisiteState,
        "no tenant is set for a value of a protected column",
        "This column's tenant comes from a setting: SET cmk_encrypt.tenant (SET LOCAL behind a connection pool).";
    TenantNull = "tenant_null", NotNullViolation,
        "the tenant of a value of a protected column is null",
        "The row's tenant decides under whose key a value is sealed: give it one, or leave the value null.";
    TooLong = "too_long", StringDataRightTruncation,
        "value is too long for its protected column",
        "The column was declared with a length, in characters.";
    ArmorRefused = "armor_refused", InsufficientPrivilege,
        "value looks like an armored envelope, out of a dump or of ciphertext output",
        "To restore it as what it is, SET cmk_encrypt.input = envelope. To store and seal these very characters, SET cmk_encrypt.input = text.";
    ArmorMalformed = "armor_malformed", InvalidTextRepresentation,
        "armored envelope is malformed",
        "It was cut or changed on its way. With cmk_encrypt.input = text it is stored as the text that it is.";
    IndexRefused = "index_refused", WrongObjectType,
        "a protected column cannot be indexed in the order of its plaintext",
        "The order of an index would tell what its values are. To search by equality: cmk.protect_column(table, column, searchable => true), and an index with cmk_token_ops.";
    NotSearchable = "not_searchable", WrongObjectType,
        "a value of a protected column has no token to be indexed by",
        "Make the column searchable: cmk.protect_column(table, column, searchable => true), CALL cmk.seal_table(table), then build the index.";
    TokenMissing = "token_missing", CheckViolation,
        "the tokens of a value are not those that its protected column asks for",
        "Such a value gets its tokens where it is inserted by a role with grants for its tenant, but not while session_replication_role is replica. Rows from before: CALL cmk.seal_table().";
    ColumnOptions = "column_options", InvalidParameterValue,
        "options of a protected column are not valid",
        "cmk.protect_column() writes them: search, then lower, digits or alnum, then bits=N with 8 to 120.";
    TooManyTenants = "too_many_tenants", InvalidParameterValue,
        "too many tenants to search in",
        "Name one: compare the tenant column in the same query, or SET cmk_encrypt.tenant. By grants alone, at most 64 tenants are searched.";
    NoIndexKey = "no_index_key", ObjectNotInPrerequisiteState,
        "tenant % has no index key",
        "Searchable columns need one: have a database administrator call cmk.rotate_index_key(tenant), which makes the first one, too.";
    IndexRotationOpen = "index_rotation_open", ObjectNotInPrerequisiteState,
        "the index key of tenant % is being replaced, or not all values have the tokens for the next step",
        "CALL cmk.seal_table() for the tables of its searchable columns, then call again; cmk.cancel_index_rotation(tenant) gives a replacement up.";
    IndexRotationRefused = "index_rotation_refused", WrongObjectType,
        "the index key of tenant % cannot be replaced as things stand",
        "DETAIL names what is in the way: a foreign key that compares tokens (drop it, and add it again afterwards), or a unique index without its twin (CREATE UNIQUE INDEX CONCURRENTLY with cmk_token_next_ops on the same columns).";
    IndexKeyReplaced = "index_key_replaced", ObjectNotInPrerequisiteState,
        "the index key of tenant % was replaced after this statement was planned",
        "Run the statement again; open the cursor again.";
    RewrapTarget = "rewrap_target", InvalidParameterValue,
        "tenant % has this key already",
        "Give the key to move to. If the move was confirmed, nothing is left to do.";
    RewrapPending = "rewrap_pending", ObjectNotInPrerequisiteState,
        "tenant % is being moved to another key",
        "Go on with that one (DETAIL names it), or give it up first: cmk.cancel_rewrap(tenant).";
    RewrapIncomplete = "rewrap_incomplete", ObjectNotInPrerequisiteState,
        "not all data keys of tenant % are wrapped by the key that it is to move to",
        "Call cmk.rewrap_tenant() with the same key again; a data key that was made meanwhile is among those that remain.";
    NoRewrap = "no_rewrap", ObjectNotInPrerequisiteState,
        "tenant % is not being moved to another key",
        "cmk.rewrap_tenant() begins a move; the view cmk.tenants shows those that are under way.";
    RetirementUnchecked = "retirement_unchecked", InvalidParameterValue,
        "destroying old data keys of tenant % takes your word for what this database cannot know",
        "Look for values in backups, other databases, temporary tables and files; then say in also_checked what was looked at. With dry_run => true nothing is destroyed.";
    RetirementBlocked = "retirement_blocked", ObjectNotInPrerequisiteState,
        "old data keys of tenant % cannot be destroyed as things stand",
        "DETAIL names what cannot be looked into; end it, then call again.";
    Pause = "pause", InvalidParameterValue,
        "pause between batches is not valid",
        "Give it in times of what a batch took, from 0 to 1000: 1 makes the job take twice as long.";
    ReencryptRunning = "reencrypt_running", LockNotAvailable,
        "the column is being re-encrypted",
        "cmk.reencrypt_progress shows how far it is; it needs no second session.";
    NotReencryptable = "not_reencryptable", WrongObjectType,
        "the column cannot be re-encrypted as it stands",
        "DETAIL names everything that is in the way; nothing was changed.";
    NotProtectable = "not_protectable", WrongObjectType,
        "the column cannot be protected, sealed or unprotected as it stands",
        "DETAIL names everything that is in the way; nothing was changed. Views need not be: views => 'recreate' makes them again.";
    NotOwner = "not_owner", InsufficientPrivilege,
        "only its owner may do this to a table",
        "SET ROLE to the owner of the table, or have the owner call it.";
    NotProtected = "not_protected", UndefinedObject,
        "the column is not protected",
        "cmk.protected_columns lists the columns that are.";
    CloudTrail = "cloudtrail", InvalidParameterValue,
        "these are no records of CloudTrail",
        "Give events as a JSON array of records, as {\"Records\": [...]} or as aws cloudtrail lookup-events prints them; give calls as an array of the objects behind cmk_encrypt kms= in the server log.";
    NullArgument = "null_argument", NullValueNotAllowed,
        "a required argument is null",
        "A null here would silently store or do nothing; only the value itself may be null.";
    NotText = "not_text", CharacterNotInRepertoire,
        "decrypted value of tenant % is not valid text in the database encoding",
        "It was sealed as bytea; use cmk_decrypt().";
    ReadOnly = "read_only", ReadOnlySqlTransaction,
        "cannot change the key registry in a read-only transaction",
        "Connect to the primary in a read-write transaction.";
}

impl Reason {
    /// As it stands in the DETAIL of an error.
    pub const fn name(self) -> &'static str {
        self.entry().name
    }

    /// Inverse of [`Reason::name`].
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|r| r.name() == name)
    }

    /// What this reason, if a provider returned it, says about the tenant's key. `None` says
    /// nothing and leaves the cache alone: integrity failures, bad arguments.
    pub const fn key_state(self) -> Option<KeyState> {
        use Reason::*;
        match self {
            KeyAccessDenied | KeyDisabled | KeyPendingDeletion | KeyNotFound | KeyInvalidState => {
                Some(KeyState::Revoked)
            }
            KmsUnreachable | KmsTimeout | KmsServerError => Some(KeyState::Unreachable),
            KmsThrottled => Some(KeyState::Throttled),
            Credentials | KeyUnusable | KmsRejected | Endpoint | LocalKeysOff | LocalKeyFile => {
                Some(KeyState::Misconfigured)
            }
            // Each by name: a new reason has to say what it means for cached data keys.
            TenantPending | TenantSuspended | TenantShredded | DataKeysMissing
            | TenantRowMissing | RegistryCopied | CannotPrepare | KeysWouldBeLost
            | TenantNameFixed | NotATriggerCall | NoGrant | TenantMismatch | RegistryWrite
            | SecurityRestricted | UnknownTenant | NotInstalled | RegistryUnusable
            | UnknownRole | TenantExists | TenantBusy | TenantStateConflict | CallBudgetSpent
            | SettingsOverridden | LoadedTooLate | SystemRandom | OutOfMemory | NotAuthentic
            | UnknownDataKey | WrappedKeyRejected | KmsAnswerMismatch | CommitmentMismatch
            | NotAnEnvelope | UnknownSuite | ServicePrincipal | NoKeyPolicy | OnboardingFormat
            | TenantName | KeyUri | AuditTrail | RotationLimit | Confirmation | ShredTooSoon
            | KeyOptions | RoleArn | CloudTrail | ExternalId | AlreadySealed | TooLarge
            | ReasonName | TooManyNames | DatabaseName | AccessArgument | NullArgument
            | NotText | ReadOnly | NotSealed | ForeignEnvelope | ProtectionLost | TenantUnset
            | TenantNull | TooLong | ArmorRefused | ArmorMalformed | IndexRefused
            | NotProtectable | NotOwner | NotProtected | NotSearchable | TokenMissing
            | ColumnOptions | TooManyTenants | NoIndexKey | IndexRotationOpen
            | IndexRotationRefused | IndexKeyReplaced | RewrapTarget | RewrapPending
            | RewrapIncomplete | NoRewrap | VerificationFailed | RetirementUnchecked
            | RetirementBlocked | Pause | ReencryptRunning | NotReencryptable => None,
        }
    }

    /// True of what concerns the process that met it and says nothing about the tenant's key:
    /// another process may have newer credentials or settings, or file descriptors to spare. Nobody
    /// else is refused for it.
    pub const fn concerns_one_process(self) -> bool {
        use Reason::*;
        matches!(self, Credentials | Endpoint | LocalKeysOff | SystemRandom | OutOfMemory)
    }

    /// True where this one value, and nothing else, is what can't be opened: the default that
    /// `cmk_try_decrypt` forgives.
    pub const fn concerns_one_value(self) -> bool {
        use Reason::*;
        matches!(self, NotAnEnvelope | UnknownSuite | UnknownDataKey | NotAuthentic | NotText)
    }
}
