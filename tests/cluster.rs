//! Three `nats-server`s as `nats/cluster.conf` runs them in production, TLS aside.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use local_stack::free_port;
use local_stack::testing::binaries;

const NODES: usize = 3;
const ROUTE_PASSWORD: &str = "route-password";

/// A cluster. Its nodes end when it is dropped.
pub struct Cluster {
    nodes: Vec<Node>,
}

struct Node {
    config: PathBuf,
    log: PathBuf,
    variables: Vec<(&'static str, String)>,
    child: Option<Child>,
}

impl Cluster {
    /// Starts three nodes. `dir` holds `nats/auth.conf` as `roster init` wrote it.
    ///
    /// The ports are free when they are chosen; should another program take one before its node does,
    /// the node ends and the test says so.
    pub fn start(dir: &Path) -> Self {
        let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("../nats");
        for file in ["server.conf", "cluster.conf"] {
            std::fs::copy(files.join(file), dir.join(file)).unwrap();
        }
        std::fs::write(dir.join("tls.conf"), "").unwrap();
        let port = || free_port().unwrap();
        let routes: Vec<u16> = (0..NODES).map(|_| port()).collect();
        let route = |port: &u16| format!("nats://route:{ROUTE_PASSWORD}@127.0.0.1:{port}");
        let all = format!("[{}]", routes.iter().map(route).collect::<Vec<_>>().join(", "));
        let nodes = routes.iter().enumerate().map(|(n, route)| {
            let store = dir.join(format!("node-{n}"));
            Node {
                config: dir.join("cluster.conf"),
                log: dir.join(format!("node-{n}.log")),
                variables: vec![
                    ("NATS_SERVER_NAME", format!("node-{n}")),
                    ("NATS_LISTEN", format!("127.0.0.1:{}", port())),
                    ("NATS_MONITOR", format!("127.0.0.1:{}", port())),
                    ("NATS_STORE_DIR", format!("{:?}", store.to_str().unwrap())),
                    ("NATS_FILE_STORE_MAX", "1GB".to_owned()),
                    ("NATS_ROUTE_LISTEN", format!("127.0.0.1:{route}")),
                    ("NATS_ROUTES", all.clone()),
                    ("NATS_ROUTE_PASSWORD", ROUTE_PASSWORD.to_owned()),
                ],
                child: None,
            }
        });
        let mut cluster = Self { nodes: nodes.collect() };
        for node in 0..NODES {
            cluster.restart(node);
        }
        cluster
    }

    /// Addresses of all nodes, separated by commas.
    #[must_use]
    pub fn url(&self) -> String {
        let listens = self.nodes.iter().map(|node| format!("nats://{}", node.variables[1].1));
        listens.collect::<Vec<_>>().join(",")
    }

    /// The node of a name that the servers use.
    #[must_use]
    pub fn node(&self, name: &str) -> usize {
        self.nodes.iter().position(|node| node.variables[0].1 == name).unwrap()
    }

    /// SIGKILL to a node.
    pub fn kill(&mut self, node: usize) {
        self.nodes[node].kill();
    }

    /// Starts a node that does not run.
    pub fn restart(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        let log = std::fs::File::options().create(true).append(true).open(&node.log).unwrap();
        let child = Command::new(&binaries().nats_server)
            .arg("--config")
            .arg(&node.config)
            .envs(node.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        node.child = Some(child);
    }
}

impl Node {
    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}
