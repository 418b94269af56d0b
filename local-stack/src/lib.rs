//! Obtains and runs real nats-server and mongod as child processes
