//! What every service needs: event-log client, configuration, telemetry, health, problem+json, tokens
