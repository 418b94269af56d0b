//! The keys on disk, and what a server makes of them.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use async_nats::{ConnectErrorKind, ConnectOptions};
use local_stack::{DataDir, NatsOptions, NatsServer, testing};
use nats_access::{Role, TestTrust, Trust, TrustError};

use crate::support::{Of, Peer, account, url};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn a_server_goes_on_trusting_what_was_loaded_again() {
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
    // JetStream is on in this account, and knows no limit.
    let operator = second.creds(Role::Operator).unwrap();
    let operator = Peer::with_creds(&server.url(), &operator, Role::Operator).await.unwrap();
    let context = async_nats::jetstream::new(operator.client.clone());
    let limits = context.query_account().await.unwrap().limits;
    assert_eq!((limits.max_memory, limits.max_storage), (None, None));
    assert_eq!((limits.max_streams, limits.max_consumers), (None, None));
}

#[tokio::test]
async fn nobody_comes_in_without_credentials_of_this_trust() {
    let error = ConnectOptions::new().connect(url()).await.unwrap_err();
    assert_eq!(error.kind(), ConnectErrorKind::AuthorizationViolation, "{error}");
    let stranger = TestTrust::with_accounts(1).account(0).creds(Role::Operator).unwrap();
    let error = Peer::with_creds(&url(), &stranger, Role::Operator).await.err().unwrap();
    assert_eq!(error.kind(), ConnectErrorKind::AuthorizationViolation, "{error}");
    // The same way with the right credentials.
    let mut peer = Peer::connect(account(Of::Strangers), Role::Operator).await;
    peer.has_no_report().await;
}

#[test]
fn secrets_are_for_the_owner_alone() {
    let folder = testing::temp_dir();
    let dir = folder.path().join("trust");
    let trust = Trust::load_or_create(&dir).unwrap();
    let creds = folder.path().join("creds");
    trust.write_creds(&creds).unwrap();
    for folder in [&dir, &dir.join("seeds"), &creds] {
        assert_eq!(mode(folder), 0o700, "{}", folder.display());
    }
    let names: Vec<_> = fs::read_dir(dir.join("seeds")).unwrap().map(Result::unwrap).collect();
    assert_eq!(names.len(), 4);
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "something temporary is left");
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
    // What was opened to others is closed again.
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

    // One of another role, one cut short, one that is no text, one that is gone.
    fs::copy(file(Role::Operator), file(Role::QueryApi)).unwrap();
    fs::write(file(Role::CommandApi), &read(Role::CommandApi)[..100]).unwrap();
    fs::write(file(Role::Projector), [0xff, 0xfe]).unwrap();
    fs::remove_file(file(Role::Operator)).unwrap();
    trust.write_creds(&creds).unwrap();
    let after = Role::ALL.map(read);
    assert_ne!(after[2], before[0], "the query side keeps what the operator may do");
    for (role, text) in Role::ALL.into_iter().zip(&after) {
        assert_eq!(text.lines().count(), before[0].lines().count(), "{role}");
    }
    trust.write_creds(&creds).unwrap();
    assert_eq!(Role::ALL.map(read), after);

    // Of another trust.
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

#[test]
fn a_folder_from_before_there_were_subscribers_gets_their_key() {
    let folder = testing::temp_dir();
    let dir = folder.path().join("trust");
    let before = Trust::load_or_create(&dir).unwrap().creds(Role::Projector).unwrap();
    fs::remove_file(dir.join("seeds").join("subscribers.nk")).unwrap();
    let configs = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| Trust::load_or_create(&dir).unwrap().server_config().unwrap()))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(configs.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(mode(&dir.join("seeds").join("subscribers.nk")), 0o600);
    assert_eq!(fs::read_dir(dir.join("seeds")).unwrap().count(), 4, "something temporary is left");
    assert!(before.contains("NATS USER JWT"));
}

#[test]
fn who_starts_at_the_same_time_gets_the_same_keys() {
    let folder = testing::temp_dir();
    let dir = folder.path().join("trust");
    let configs = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| Trust::load_or_create(&dir).unwrap().server_config().unwrap()))
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(configs.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "something temporary is left");
}
