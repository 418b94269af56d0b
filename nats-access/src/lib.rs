//! Who may do what on NATS: operator, account and user credentials with least privilege
