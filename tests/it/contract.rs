//! The OpenAPI document as it is served, and that its examples work.

use e2e::{ADMIN_EMAIL, ADMIN_PASSWORD, Answer, Client, System};
use serde_json::Value;

struct Document(Value);

impl Document {
    async fn of(client: &Client) -> Self {
        let answer = client.get("/openapi.json").await.expect(200);
        assert_eq!(answer.header("content-type"), Some("application/json"));
        Self(answer.body)
    }

    /// Sends the example of a call's body to it; the first status below 300 that is described is expected.
    async fn call(&self, client: &Client, id: &str, user: &str) -> Answer {
        let (path, method, operation) = self.0["paths"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(path, item)| {
                let calls = item.as_object().unwrap().iter();
                calls.map(move |(method, call)| (path, method, call))
            })
            .find(|(_, _, call)| call["operationId"] == id)
            .unwrap();
        let content = operation["requestBody"]["content"].as_object().unwrap();
        let (kind, content) = content.iter().next().unwrap();
        let name = content["schema"]["$ref"].as_str().unwrap().rsplit('/').next().unwrap();
        let example = &self.0["components"]["schemas"][name]["example"];
        assert!(example.is_object(), "{name} has an example");
        let path = path.replace("{user_id}", user);
        let body = Some((kind.as_str(), example.to_string().into_bytes()));
        let answer = client.send(&method.to_uppercase(), &path, body).await;
        let described = operation["responses"].as_object().unwrap().keys().next().unwrap();
        answer.expect(described.parse().unwrap())
    }
}

fn bearer(client: &Client, answer: &Answer) -> Client {
    client.with_token(answer.body["access_token"].as_str().unwrap())
}

#[tokio::test]
async fn the_examples_of_the_document_are_good_requests() {
    let system = System::shared().await;
    let commands = system.commands();
    let document = Document::of(&commands).await;
    assert_eq!(document.0, Document::of(&system.queries()).await.0, "one document for both");
    let call = async |client: &Client, id: &str| document.call(client, id, "").await;

    call(&commands, "register").await;
    let ada = bearer(&commands, &call(&commands, "login").await);
    call(&ada, "change_me").await;
    call(&commands, "password_reset_request").await;
    call(&ada, "delete_me").await;

    call(&commands, "register").await;
    let verify = |mail: &e2e::Mail| mail.link.as_ref().is_some_and(|l| l.purpose == "verify-email");
    // The first user's address is verified by nobody any more: the second mail is the good one.
    let mails = loop {
        let mails = system.wait_for_mails_to("ada@example.com", 2).await;
        let mails: Vec<_> = mails.into_iter().filter(verify).collect();
        if mails.len() == 2 {
            break mails;
        }
    };
    let ada = bearer(&commands, &call(&commands, "login").await);
    let body = serde_json::json!({"token": mails[1].token()});
    ada.post("/api/v1/auth/verify-email-confirm", &body).await.expect(204);
    let ada = bearer(&commands, &call(&commands, "login").await);
    call(&ada, "change_email").await;
    call(&ada, "change_password").await;

    let admin = commands.with_token(&commands.login(ADMIN_EMAIL, ADMIN_PASSWORD).await);
    let made = call(&admin, "create_user").await;
    let user = made.body["id"].as_str().unwrap();
    document.call(&admin, "change_user", user).await;
    document.call(&admin, "replace_user", user).await;
}

#[tokio::test]
async fn the_page_of_the_document_loads_nothing_from_elsewhere() {
    let system = System::shared().await;
    for client in [system.commands(), system.queries()] {
        let page = client.get("/docs").await.expect(200);
        assert_eq!(page.header("content-type"), Some("text/html"));
        let policy = page.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
        let text = String::from_utf8(page.bytes).unwrap();
        let sources: Vec<&str> = text
            .split(['"', '\''])
            .filter(|part| part.ends_with(".js") || part.ends_with(".css"))
            .collect();
        assert!(sources.len() >= 3, "{text}");
        for source in sources {
            let file = source.strip_prefix("./").unwrap_or(source);
            assert!(!file.contains(':') && !file.starts_with("//"), "{source}");
            client.get(&format!("/docs/{file}")).await.expect(200);
        }
        let start = client.get("/docs/swagger-initializer.js").await.expect(200);
        let start = String::from_utf8(start.bytes).unwrap();
        assert!(start.contains("\"deepLinking\": true"), "the address names the call: {start}");
        client.get("/docs/no-such-file").await.expect(404);
        client.get("/docs/error-codes.md").await.expect(200);
    }
}
