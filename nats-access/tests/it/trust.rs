//! The keys on disk, and how a server uses them.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use async_nats::connection::State;
use async_nats::{ConnectErrorKind, ConnectOptions};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use events::ServiceNames;
use local_stack::{DataDir, NatsOptions, NatsServer, testing};
use nats_access::{CredsOutcome, Role, ServiceUser, SubscriberName, TestTrust, Trust, TrustError};
use nkeys::KeyPair;
use tokio::task::yield_now;
use tokio::time::timeout;

use crate::support::{Of, Peer, WAIT_MAX, account, url};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn a_server_trusts_reloaded_keys() {
    let folder = testing::temp_dir();
    let dir = folder.path().join("new").join("trust");
    let first = Trust::load_or_create(&dir).unwrap();
    let data = DataDir::open(folder.path().join("data")).unwrap();
    let config = first.server_config().unwrap();
    let server = NatsServer::start(
        testing::binaries(),
        NatsOptions { data_dir: data.nats(), port: None, config: config.clone() },
    )
    .unwrap();

    let second = Trust::load_or_create(&dir).unwrap();
    assert_eq!(second.server_config().unwrap(), config);
    let creds = folder.path().join("creds");
    second.write_creds(&creds).unwrap();
    for role in Role::ALL {
        for text in [
            first.creds(role).unwrap(),
            second.creds(role).unwrap(),
            fs::read_to_string(creds.join(format!("{role}.creds"))).unwrap(),
        ] {
            let mut peer = Peer::with_creds(&server.url(), &text, role).await.unwrap();
            peer.has_no_report().await;
        }
    }
    // JetStream is enabled in this account, without limits.
    let operator = second.creds(Role::Operator).unwrap();
    let operator = Peer::with_creds(&server.url(), &operator, Role::Operator).await.unwrap();
    let context = async_nats::jetstream::new(operator.client.clone());
    let limits = context.query_account().await.unwrap().limits;
    assert_eq!((limits.max_memory, limits.max_storage), (None, None));
    assert_eq!((limits.max_streams, limits.max_consumers), (None, None));
}

/// The server needs no restart, and disconnects the user.
#[tokio::test]
async fn a_revoked_user_is_disconnected_and_rejected() {
    let folder = testing::temp_dir();
    let dir = folder.path().join("trust");
    let mut trust = Trust::load_or_create(&dir).unwrap();
    let before = trust.server_config().unwrap();
    let data = DataDir::open(folder.path().join("data")).unwrap();
    let options = NatsOptions { data_dir: data.nats(), port: None, config: before.clone() };
    let server = NatsServer::start(testing::binaries(), options).unwrap();
    let product = ServiceUser::service(&ServiceNames::fixed("product", "products"));
    let file = folder.path().join("product.creds");
    let stolen = trust.write_service_creds(&file, &product).unwrap();
    assert_eq!(stolen.outcome, CredsOutcome::Made);
    let text = fs::read_to_string(&file).unwrap();
    let connect = async |text: &str| {
        let options = ConnectOptions::with_credentials(text).unwrap();
        options.custom_inbox_prefix(product.inbox_prefix()).connect(server.url()).await
    };
    let thief = connect(&text).await.unwrap();
    let operator = trust.creds(Role::Operator).unwrap();
    let mut other = Peer::with_creds(&server.url(), &operator, Role::Operator).await.unwrap();

    assert!(trust.revoke(&dir, &stolen.user).unwrap());
    assert!(!trust.revoke(&dir, &stolen.user).unwrap(), "the user is already revoked");
    assert!(matches!(trust.revoke(&dir, "product"), Err(TrustError::NoUser { .. })));
    // The revocation is stored for every process that loads the keys later.
    let after = Trust::load_or_create(&dir).unwrap().server_config().unwrap();
    assert_ne!(after, before);
    let config = data.nats().path().join("nats.conf");
    let whole = fs::read_to_string(&config).unwrap();
    assert!(whole.contains(&before));
    fs::write(&config, whole.replace(&before, &after)).unwrap();
    let pid = server.pid().unwrap().to_string();
    assert!(Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());

    let put_out = async {
        while thief.connection_state() == State::Connected {
            yield_now().await
        }
    };
    timeout(WAIT_MAX, put_out).await.unwrap();
    let error = connect(&text).await.unwrap_err();
    assert_eq!(error.kind(), ConnectErrorKind::AuthorizationViolation, "{error}");
    other.has_no_report().await;

    // The file gets another user, which is accepted.
    let next = trust.write_service_creds(&file, &product).unwrap();
    assert_eq!(next.outcome, CredsOutcome::Made);
    assert_ne!(next.user, stolen.user);
    connect(&fs::read_to_string(&file).unwrap()).await.unwrap();
    let same = trust.write_service_creds(&file, &product).unwrap();
    assert_eq!((same.outcome, same.user), (CredsOutcome::Unchanged, next.user));
}

#[test]
fn revoking_a_subscriber_revokes_exactly_its_users() {
    let folder = testing::temp_dir();
    let dir = folder.path().join("trust");
    let mut trust = Trust::load_or_create(&dir).unwrap();
    let name = |text| SubscriberName::parse(text).unwrap();
    let (billing, other) = (name("billing"), name("billing-2"));
    let make = |trust: &Trust, name| trust.new_subscriber(&dir, name).unwrap().user;
    let users = [make(&trust, &billing), make(&trust, &billing)];
    let stays = make(&trust, &other);
    // Processes that load the keys later know of it.
    let mut later = Trust::load_or_create(&dir).unwrap();
    assert_eq!(later.revoke_subscriber(&dir, &billing).unwrap(), users);
    assert_eq!(later.revoke_subscriber(&dir, &billing).unwrap(), [""; 0]);
    // A later subscriber with the same name has another user, which is accepted.
    let again = make(&trust, &billing);
    assert_eq!(later.revoke_subscriber(&dir, &billing).unwrap(), [again]);
    let revoked = fs::read_to_string(dir.join("revoked")).unwrap();
    assert!(users.iter().all(|user| revoked.contains(user)) && !revoked.contains(&stays));
    assert!(trust.revoke(&dir, &stays).unwrap());
}

#[test]
fn credentials_of_a_service_never_replace_others() {
    let folder = testing::temp_dir();
    let trust = Trust::load_or_create(&folder.path().join("trust")).unwrap();
    let names = ServiceNames::fixed("product", "products");
    let (service, verifier) = (ServiceUser::service(&names), ServiceUser::verifier(&names));
    let file = folder.path().join("creds");
    let elsewhere = Trust::load_or_create(&folder.path().join("elsewhere")).unwrap();
    for text in [trust.creds(Role::Operator).unwrap(), "notes".to_owned(), String::new(), {
        let other = folder.path().join("other");
        elsewhere.write_service_creds(&other, &service).unwrap();
        fs::read_to_string(&other).unwrap()
    }] {
        fs::write(&file, &text).unwrap();
        let refused = trust.write_service_creds(&file, &service).unwrap_err();
        assert!(matches!(refused, TrustError::Foreign { .. }), "{refused}");
        assert_eq!(fs::read_to_string(&file).unwrap(), text);
    }
    fs::remove_file(&file).unwrap();
    trust.write_service_creds(&file, &service).unwrap();
    assert_eq!(mode(&file), 0o600);
    let refused = trust.write_service_creds(&file, &verifier).unwrap_err();
    assert!(matches!(refused, TrustError::Foreign { .. }), "{refused}");
}

#[tokio::test]
async fn rejects_clients_without_credentials_of_this_trust() {
    let error = ConnectOptions::new().connect(url()).await.unwrap_err();
    assert_eq!(error.kind(), ConnectErrorKind::AuthorizationViolation, "{error}");
    let stranger = TestTrust::with_accounts(1).account(0).creds(Role::Operator).unwrap();
    let error = Peer::with_creds(&url(), &stranger, Role::Operator).await.err().unwrap();
    assert_eq!(error.kind(), ConnectErrorKind::AuthorizationViolation, "{error}");
    // The same client with valid credentials.
    let mut peer = Peer::connect(account(Of::Strangers), Role::Operator).await;
    peer.has_no_report().await;
}

#[test]
fn secrets_are_readable_by_the_owner_only() {
    let folder = testing::temp_dir();
    let dir = folder.path().join("trust");
    let trust = Trust::load_or_create(&dir).unwrap();
    let creds = folder.path().join("creds");
    trust.write_creds(&creds).unwrap();
    for folder in [&dir, &dir.join("seeds"), &creds] {
        assert_eq!(mode(folder), 0o700, "{}", folder.display());
    }
    let names: Vec<_> = fs::read_dir(dir.join("seeds")).unwrap().map(Result::unwrap).collect();
    assert_eq!(names.len(), 5);
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "a temporary file is left");
    for file in names.iter().map(fs::DirEntry::path) {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
        let seed = fs::read_to_string(&file).unwrap();
        assert!(!trust.server_config().unwrap().contains(seed.trim()));
        assert!(!format!("{trust:?}").contains(seed.trim()));
    }
    let files: Vec<_> = fs::read_dir(&creds).unwrap().map(Result::unwrap).collect();
    assert_eq!(files.len(), Role::ALL.len());
    for role in Role::ALL {
        assert_eq!(mode(&creds.join(format!("{role}.creds"))), 0o600);
    }
    // Access for other users is removed again.
    let open = dir.join("seeds").join("account.nk");
    fs::set_permissions(&open, Permissions::from_mode(0o644)).unwrap();
    Trust::load_or_create(&dir).unwrap();
    assert_eq!(mode(&open), 0o600);
}

#[test]
fn valid_credentials_stay_and_others_are_replaced() {
    let folder = testing::temp_dir();
    let dir = folder.path().join("trust");
    let trust = Trust::load_or_create(&dir).unwrap();
    let creds = folder.path().join("creds");
    trust.write_creds(&creds).unwrap();
    let file = |role: Role| creds.join(format!("{role}.creds"));
    let read = |role| fs::read_to_string(file(role)).unwrap();
    let before = Role::ALL.map(read);
    Trust::load_or_create(&dir).unwrap().write_creds(&creds).unwrap();
    assert_eq!(Role::ALL.map(read), before);

    // A file of another role, a truncated one, one that is not text, and a missing one.
    fs::copy(file(Role::Operator), file(Role::QueryApi)).unwrap();
    fs::write(file(Role::CommandApi), &read(Role::CommandApi)[..100]).unwrap();
    fs::write(file(Role::Projector), [0xff, 0xfe]).unwrap();
    fs::remove_file(file(Role::Operator)).unwrap();
    trust.write_creds(&creds).unwrap();
    let after = Role::ALL.map(read);
    assert_ne!(after[2], before[0], "the query side keeps the operator's permissions");
    for (role, text) in Role::ALL.into_iter().zip(&after) {
        assert_eq!(text.lines().count(), before[0].lines().count(), "{role}");
    }
    trust.write_creds(&creds).unwrap();
    assert_eq!(Role::ALL.map(read), after);

    // Credentials of another trust.
    let other = Trust::load_or_create(&folder.path().join("other")).unwrap();
    other.write_creds(&creds).unwrap();
    assert_ne!(Role::ALL.map(read), after);
}

#[test]
fn a_lost_or_damaged_seed_is_never_replaced() {
    let folder = testing::temp_dir();
    let dir = folder.path().join("trust");
    Trust::load_or_create(&dir).unwrap();
    let seeds = dir.join("seeds");
    let account = fs::read_to_string(seeds.join("account.nk")).unwrap();
    let operator = fs::read_to_string(seeds.join("operator.nk")).unwrap();
    for wrong in [&account[..20], "", &operator] {
        fs::write(seeds.join("account.nk"), wrong).unwrap();
        let error = Trust::load_or_create(&dir).unwrap_err();
        assert!(matches!(error, TrustError::Seed { kind: "account", .. }), "{error}");
    }
    fs::remove_file(seeds.join("account.nk")).unwrap();
    let error = Trust::load_or_create(&dir).unwrap_err();
    assert!(matches!(error, TrustError::Io { .. }), "{error}");
    assert!(!seeds.join("account.nk").exists());
}

/// A token as the product's account signed it for services, issued on the day on which all of them were.
fn old_token(seeds: &Path, user: &KeyPair, name: &str) -> String {
    let account = KeyPair::from_seed(fs::read_to_string(seeds.join("account.nk")).unwrap().trim());
    let account = account.unwrap();
    let claims = serde_json::json!({
        "jti": "before", "iat": 1_767_225_600, "iss": account.public_key(), "name": name,
        "sub": user.public_key(),
        "nats": { "type": "user", "version": 2, "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1 },
    });
    let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let header = encode(br#"{"typ":"JWT","alg":"ed25519-nkey"}"#);
    let signed = format!("{header}.{}", encode(claims.to_string().as_bytes()));
    let signature = encode(&account.sign(signed.as_bytes()).unwrap());
    format!(
        "-----BEGIN NATS USER JWT-----\n{signed}.{signature}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
        user.seed().unwrap()
    )
}

#[tokio::test]
async fn rejects_a_copy_from_before_permissions_were_removed() {
    let folder = testing::temp_dir();
    let dir = folder.path().join("trust");
    let trust = Trust::load_or_create(&dir).unwrap();
    let data = DataDir::open(folder.path().join("data")).unwrap();
    let config = trust.server_config().unwrap();
    let options = NatsOptions { data_dir: data.nats(), port: None, config };
    let server = NatsServer::start(testing::binaries(), options).unwrap();
    let user = KeyPair::new_user();
    let product = ServiceUser::service(&ServiceNames::fixed("product", "products"));
    let copy = old_token(&dir.join("seeds"), &user, product.name());
    let connect = async |text: &str| {
        let options = ConnectOptions::with_credentials(text).unwrap();
        options.custom_inbox_prefix(product.inbox_prefix()).connect(server.url()).await
    };
    let error = connect(&copy).await.unwrap_err();
    assert_eq!(error.kind(), ConnectErrorKind::AuthorizationViolation, "{error}");

    // The file gets today's permissions and keeps its user.
    let file = folder.path().join("product.creds");
    fs::write(&file, &copy).unwrap();
    let written = trust.write_service_creds(&file, &product).unwrap();
    assert_eq!((written.outcome, written.user), (CredsOutcome::Renewed, user.public_key()));
    connect(&fs::read_to_string(&file).unwrap()).await.unwrap();
}

#[test]
fn an_older_folder_gets_the_keys_of_new_accounts() {
    let folder = testing::temp_dir();
    let dir = folder.path().join("trust");
    let before = Trust::load_or_create(&dir).unwrap().creds(Role::Projector).unwrap();
    for later in ["subscribers.nk", "services.nk"] {
        fs::remove_file(dir.join("seeds").join(later)).unwrap();
    }
    let configs = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| Trust::load_or_create(&dir).unwrap().server_config().unwrap()))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(configs.windows(2).all(|pair| pair[0] == pair[1]));
    for later in ["subscribers.nk", "services.nk"] {
        assert_eq!(mode(&dir.join("seeds").join(later)), 0o600);
    }
    assert_eq!(fs::read_dir(dir.join("seeds")).unwrap().count(), 5, "a temporary file is left");
    assert!(before.contains("NATS USER JWT"));
}

#[test]
fn concurrent_starts_get_the_same_keys() {
    let folder = testing::temp_dir();
    let dir = folder.path().join("trust");
    let configs = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| Trust::load_or_create(&dir).unwrap().server_config().unwrap()))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(configs.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "a temporary file is left");
}
