//! A peer service next to Roster.

use std::time::Duration;

use async_nats::jetstream::{self, consumer::pull};
use e2e::{Answer, Client, Process, System};
use events::ServiceNames;
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::time::timeout;

const NAMES: ServiceNames = ServiceNames::fixed("product", "products");
/// How long to wait for the next event.
const EVENT_MAX: Duration = Duration::from_secs(20);

/// Roster and the service.
pub struct Shop {
    pub system: System,
    variables: Vec<(String, String)>,
    process: Option<Process>,
}

/// A user with a token.
pub struct Shopper {
    pub id: String,
    pub client: Client,
    pub token: String,
}

impl Shop {
    /// Runs on its own servers: the names of streams are fixed, so two instances cannot share an account.
    pub async fn open() -> Self {
        Self::open_with(&[]).await
    }

    pub async fn open_with(settings: &[(&str, &str)]) -> Self {
        let system = System::shared().await;
        let provision = system.provision_variables(&NAMES);
        let status = std::process::Command::new(env!("CARGO_BIN_EXE_product-service"))
            .arg("provision")
            .envs(provision)
            .status();
        assert!(status.unwrap().success());
        let mut variables = system.service_variables(&NAMES);
        let own = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        variables.extend(own);
        let mut shop = Self { system, variables, process: None };
        shop.start().await;
        shop
    }

    pub async fn start(&mut self) {
        let log = self.system.file("product-service.log");
        let binary = env!("CARGO_BIN_EXE_product-service").as_ref();
        let process = Process::start_program(binary, &["serve"], &self.variables, &log);
        self.process = Some(process);
        let private = self.private();
        e2e::wait_for("the service to be ready", || async {
            private.get("/readyz").await.status == 200
        })
        .await;
    }

    /// Its private listener.
    pub fn private(&self) -> Client {
        Client::new(&self.process.as_ref().unwrap().value("private"))
    }

    pub fn kill(&mut self) {
        self.process = None;
    }

    /// A client without a token.
    pub fn client(&self) -> Client {
        Client::new(&self.process.as_ref().unwrap().value("url"))
    }

    /// A newly registered user.
    pub async fn shopper(&self, name: &str) -> Shopper {
        let email = format!("{name}@shop.example");
        let commands = self.system.commands();
        let registered = commands.register(&email).await.expect(201);
        let id = registered.body["id"].as_str().unwrap().to_owned();
        let token = commands.login(&email, e2e::PASSWORD).await;
        Shopper { id, client: self.client().with_token(&token), token }
    }

    /// Roster's administrator as a client of this service.
    pub async fn administrator(&self) -> Client {
        let commands = self.system.commands();
        let token = commands.login(e2e::ADMIN_EMAIL, e2e::ADMIN_PASSWORD).await;
        self.client().with_token(&token)
    }

    /// Drops the database of the views.
    pub async fn drop_views(&self) {
        let value_of = |name: &str| {
            let found = self.variables.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| value.clone()).unwrap()
        };
        let client = mongodb::Client::with_uri_str(value_of("PRODUCT_MONGODB_URL")).await.unwrap();
        client.database(&value_of("PRODUCT_MONGODB_DATABASE")).drop().await.unwrap();
    }

    /// The number of events in the feed.
    pub async fn feed_length(&self) -> u64 {
        let context = jetstream::new(self.system.operator().await);
        let mut stream = context.get_stream("PRODUCT_EVENTS").await.unwrap();
        stream.info().await.unwrap().state.messages
    }

    /// The first `count` events of the feed.
    pub async fn feed_events(&self, count: usize) -> Vec<Value> {
        let context = jetstream::new(self.system.operator().await);
        let stream = context.get_stream("PRODUCT_EVENTS").await.unwrap();
        let consumer = stream.create_consumer(pull::Config::default()).await.unwrap();
        let mut messages = consumer.messages().await.unwrap();
        let mut events = Vec::new();
        while events.len() < count {
            let next = timeout(EVENT_MAX, messages.next()).await.unwrap().unwrap().unwrap();
            let event: Value = serde_json::from_slice(&next.payload).unwrap();
            let (kind, id) = (event["type"].as_str().unwrap(), event["subject"].as_str().unwrap());
            assert_eq!(next.subject.as_str(), format!("{kind}.{id}"));
            events.push(event);
        }
        events
    }
}

/// The body of a new product.
pub fn product(name: &str, amount: u64) -> Value {
    json!({"name": name, "price": {"amount": amount, "currency": "EUR"}})
}

/// Creates a product and returns its path.
pub async fn create(client: &Client, name: &str, amount: u64) -> String {
    let created = client.post("/api/v1/products", &product(name, amount)).await.expect(201);
    created.header("location").unwrap().to_owned()
}

/// Creates and publishes a product and returns its path.
pub async fn publish(client: &Client, name: &str, amount: u64) -> String {
    let path = create(client, name, amount).await;
    client.post(&format!("{path}/publish"), &Value::Null).await.expect(200);
    path
}

/// The names on a page.
pub fn names(page: &Answer) -> Vec<&str> {
    page.body["items"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect()
}
