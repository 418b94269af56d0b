//! What a value must be beside its type: bounds, and rules over more than one key.

use http::Uri;
use http::uri::PathAndQuery;

use url::Url;

use super::{AllowPlain, Checked, Http, MailTransport, MongoDb, Settings, TelemetrySettings};
use crate::access::Access;
use crate::http::{Origins, TrustedProxies};
use crate::tokens::ACCESS_LIFETIME_MAX_S;

/// Refuses a number that is not within its bounds.
pub(super) fn bound(faults: &mut Vec<String>, key: &str, value: u64, low: u64, high: u64) {
    if !(low..=high).contains(&value) {
        faults.push(format!("{key} is {value} and must be in {low}..{high}"));
    }
}

impl Checked for Settings {
    /// Bounds, and rules over more than one key.
    fn check(&self, faults: &mut Vec<String>) {
        let mut bound = |key: &str, value, low, high| bound(faults, key, value, low, high);
        bound("nats.request_timeout_ms", self.nats.request_timeout_ms, 100, 60_000);
        bound("nats.start_wait_s", self.nats.start_wait_s, 0, 3_600);
        bound("log.append_deadline_ms", self.log.append_deadline_ms, 500, 60_000);
        bound("log.silence_max_s", self.log.silence_max_s, 1, 86_400);
        bound("log.bytes_max", self.log.bytes_max, 1 << 20, i64::MAX.unsigned_abs());
        for (key, bytes) in [
            ("log.sessions_bytes_max", self.log.sessions_bytes_max),
            ("log.mails_bytes_max", self.log.mails_bytes_max),
            ("log.throttle_bytes_max", self.log.throttle_bytes_max),
            ("log.throttle_closed_bytes_max", self.log.throttle_closed_bytes_max),
            ("log.throttle_counts_bytes_max", self.log.throttle_counts_bytes_max),
            ("feed.bytes_max", self.feed.bytes_max),
            ("feed.snapshots_bytes_max", self.feed.snapshots_bytes_max),
            ("audit.bytes_max", self.audit.bytes_max),
            ("security.bytes_max", self.security.bytes_max),
        ] {
            bound(key, bytes, 1 << 20, i64::MAX.unsigned_abs());
        }
        bound("feed.sessions_kept_s", self.feed.sessions_kept_s, 3_600, 315_360_000);
        bound("audit.kept_s", self.audit.kept_s, 86_400, 315_360_000);
        let security = &self.security;
        bound("security.kept_s", security.kept_s, 86_400, 315_360_000);
        bound("security.queue_max", security.queue_max as u64, 100, 1_000_000);
        let per_minute = u64::from(security.anonymous_per_minute_max);
        bound("security.anonymous_per_minute_max", per_minute, 1, 100_000);
        bound("sessions.idle_s", self.sessions.idle_s, 300, 31_536_000);
        bound("sessions.absolute_s", self.sessions.absolute_s, 300, 31_536_000);
        bound("sessions.reuse_window_s", self.sessions.reuse_window_s, 0, 60);
        bound("sessions.per_user_max", self.sessions.per_user_max as u64, 1, 1_000);
        bound("revocations.silence_max_ms", self.revocations.silence_max_ms, 3_000, 60_000);
        for (key, seconds) in [
            ("mail.reset_link_s", self.mail.reset_link_s),
            ("mail.set_password_link_s", self.mail.set_password_link_s),
            ("mail.verify_link_s", self.mail.verify_link_s),
            ("mail.email_link_s", self.mail.email_link_s),
        ] {
            bound(key, seconds, 300, 604_800);
        }
        bound("mail.undo_link_s", self.mail.undo_link_s, 86_400, 2_592_000);
        bound("mail.give_up_s", self.mail.give_up_s, 60, 604_800);
        // A notice that waits for its turn must not be given up meanwhile.
        let interval_max_s = self.mail.give_up_s.saturating_sub(1).clamp(1, 86_400);
        bound("mail.notice_interval_s", self.mail.notice_interval_s, 1, interval_max_s);
        bound("erasure.second_look_s", self.erasure.second_look_s, 1, 3_600);
        bound("erasure.busy_percent", self.erasure.busy_percent, 1, 100);
        bound("mongodb.operation_timeout_ms", self.mongodb.operation_timeout_ms, 100, 60_000);
        let life_max_s = ACCESS_LIFETIME_MAX_S;
        bound("tokens.access_lifetime_s", self.tokens.access_lifetime_s.into(), 30, life_max_s);
        bound("passwords.length_min", self.passwords.length_min as u64, 8, 64);
        bound("passwords.strength_min", self.passwords.strength_min.into(), 0, 4);
        bound("passwords.memory_kib", self.passwords.memory_kib.into(), 19_456, 4_194_304);
        bound("passwords.passes", self.passwords.passes.into(), 2, 100);
        bound("passwords.threads", self.passwords.threads as u64, 0, 1_024);
        bound("passwords.queue_max", self.passwords.queue_max as u64, 1, 10_000);
        bound("passwords.large_queue_max", self.passwords.large_queue_max as u64, 1, 1_000);
        bound("passwords.refusal_step_ms", self.passwords.refusal_step_ms, 50, 5_000);
        let throttle = &self.throttle;
        bound(
            "throttle.account_failures_free",
            throttle.account_failures_free.into(),
            1,
            u64::from(throttle.account_failures_max).saturating_sub(1).max(1),
        );
        bound("throttle.account_delay_max_s", throttle.account_delay_max_s, 1, 86_400);
        bound("throttle.account_failures_max", throttle.account_failures_max.into(), 2, 100);
        bound("throttle.address_failures_free", throttle.address_failures_free.into(), 1, 1_000);
        bound("throttle.address_delay_max_s", throttle.address_delay_max_s, 1, 3_600);
        bound("throttle.address_halving_s", throttle.address_halving_s, 1, 86_400);
        bound("throttle.wait_max_ms", throttle.wait_max_ms, 0, 5_000);
        bound("throttle.mails_max", throttle.mails_max.into(), 1, 1_000);
        bound("throttle.mails_window_s", throttle.mails_window_s, 1, 86_400);
        bound("throttle.requests_max", throttle.requests_max.into(), 1, 100_000);
        bound("throttle.requests_window_s", throttle.requests_window_s, 1, 86_400);
        for (key, factor) in [
            ("throttle.ipv6_56_factor", throttle.ipv6_56_factor),
            ("throttle.ipv6_48_factor", throttle.ipv6_48_factor),
            ("throttle.ipv6_32_factor", throttle.ipv6_32_factor),
        ] {
            bound(key, factor.into(), 1, 1_000_000);
        }
        for (kind, per_minute, per_day) in [
            ("writes", throttle.writes_per_minute_max, throttle.writes_per_day_max),
            ("refreshes", throttle.refreshes_per_minute_max, throttle.refreshes_per_day_max),
            ("logins", throttle.logins_per_minute_max, throttle.logins_per_day_max),
            (
                "password_checks",
                throttle.password_checks_per_minute_max,
                throttle.password_checks_per_day_max,
            ),
        ] {
            bound(&format!("throttle.{kind}_per_minute_max"), per_minute.into(), 1, 100_000);
            bound(&format!("throttle.{kind}_per_day_max"), per_day.into(), 1, 10_000_000);
        }
        bound("log.reserve_percent", self.log.reserve_percent.into(), 0, 50);
        bound("views.command_wait_ms", self.views.command_wait_ms, 0, 10_000);
        bound("views.query_wait_ms", self.views.query_wait_ms, 0, 30_000);
        bound("views.list_work_ms", self.views.list_work_ms, 1, 60_000);
        bound("views.list_total_max", self.views.list_total_max, 0, 100_000_000);
        bound("views.generations_known_s", self.views.generations_known_s, 4, 60);
        bound("projector.batch_events_max", self.projector.batch_events_max as u64, 1, 10_000);
        bound("projector.parked_max", self.projector.parked_max as u64, 0, 100);
        let check_pause_ms = self.projector.check_pause_ms;
        // 0 is for not at all.
        bound(
            "projector.check_pause_ms",
            check_pause_ms,
            if check_pause_ms == 0 { 0 } else { 10 },
            3_600_000,
        );
        bound("projector.lag_max_ms", self.projector.lag_max_ms, 1_000, 3_600_000);
        check_replicas(self.log.replicas, faults);
        self.check_mail_caps(faults);
        check_allow_plain(&self.allow_plain, faults);
        self.http.check(faults);
        if let Err(why) = self.access.roles.parse::<Access>() {
            faults.push(format!("access.roles: {why}"));
        }
        if self.tokens.issuer.is_empty() || self.tokens.audience.is_empty() {
            faults.push("tokens.issuer and tokens.audience must not be empty".to_owned());
        }
        if self.sessions.idle_s > self.sessions.absolute_s {
            faults.push("sessions.idle_s must not be longer than sessions.absolute_s".to_owned());
        }
        let base = &self.mail.link_base;
        if !base.is_empty() && !is_link_base(base) {
            faults.push(
                "mail.link_base must be an http or https URL without user, query, fragment and a slash at its end"
                    .to_owned(),
            );
        }
        if self.mail.transport == MailTransport::Smtp && self.mail.smtp_url.is_empty() {
            faults.push("mail.smtp_url must be set for the transport smtp".to_owned());
        }
        self.check_unverified(faults);
        self.telemetry.check(faults);
        self.mongodb.check(faults);
    }
}

impl Settings {
    /// Whether somebody has logged in is known for as long as the log of sessions goes back.
    fn check_unverified(&self, faults: &mut Vec<String>) {
        let days = self.registration.unverified_kept_days;
        bound(faults, "registration.unverified_kept_days", days, 0, 365);
        if let Err(why) = self.knows_logins_of(days) {
            faults.push(format!("registration.unverified_kept_days is {days}: {why}"));
        }
    }

    /// Whether the log of sessions says who has logged in within so many days.
    ///
    /// # Errors
    /// In words, why it does not.
    pub fn knows_logins_of(&self, days: u64) -> Result<(), String> {
        let absolute_s = self.sessions.absolute_s;
        if days.saturating_mul(86_400) <= absolute_s {
            return Ok(());
        }
        Err(format!(
            "logins are known for as long as sessions.absolute_s ({absolute_s}), which is shorter"
        ))
    }

    /// A cap on reset mails must leave everybody a good link: whoever is refused another mail got one that lasts.
    fn check_mail_caps(&self, faults: &mut Vec<String>) {
        let (window_s, link_s) = (self.throttle.mails_window_s, self.mail.reset_link_s);
        if window_s > link_s {
            faults.push(format!(
                "throttle.mails_window_s is {window_s} and must not be longer than mail.reset_link_s ({link_s})"
            ));
        }
        let mails_max = u64::from(self.throttle.mails_max);
        if window_s.saturating_mul(2) > link_s.saturating_mul(mails_max) {
            faults.push(format!(
                "throttle.mails_window_s divided by throttle.mails_max must not be longer than half of \
                 mail.reset_link_s ({link_s})"
            ));
        }
    }
}

/// Refuses a number of copies that no cluster can keep a majority of.
pub(super) fn check_replicas(replicas: u8, faults: &mut Vec<String>) {
    if !matches!(replicas, 1 | 3 | 5) {
        faults.push(format!("log.replicas is {replicas} and must be 1, 3 or 5"));
    }
}

/// Refuses what is no list of connections.
pub(super) fn check_allow_plain(text: &str, faults: &mut Vec<String>) {
    if let Err(why) = text.parse::<AllowPlain>() {
        faults.push(why);
    }
}

/// Whether a path and a query can be put behind it.
fn is_link_base(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
    }) && !text.ends_with('/')
}

impl Http {
    pub(super) fn check(&self, faults: &mut Vec<String>) {
        let mut bound = |key: &str, value, low, high| bound(faults, key, value, low, high);
        bound("http.connections_max", self.connections_max, 1, 1_000_000);
        let per_network = self.connections_per_network_max;
        bound("http.connections_per_network_max", per_network, 1, 1_000_000);
        bound("http.idle_timeout_s", self.idle_timeout_s, 1, 3_600);
        bound("http.head_timeout_s", self.head_timeout_s, 1, 300);
        bound("http.answer_timeout_s", self.answer_timeout_s, 1, 3_600);
        bound("http.stop_delay_ms", self.stop_delay_ms, 0, 60_000);
        let (public, private) = (self.listen, self.private_listen);
        // An unspecified address takes the port on every address.
        let share = public.ip() == private.ip()
            || public.ip().is_unspecified()
            || private.ip().is_unspecified();
        if public.port() == private.port() && public.port() != 0 && share {
            faults.push("http.listen and http.private_listen must not share a port".to_owned());
        }
        if let Err(why) = Origins::parse(&self.cors_origins) {
            faults.push(format!("http.cors_origins: {why}"));
        }
        if let Err(why) = TrustedProxies::parse(&self.trusted_proxies) {
            faults.push(format!("http.trusted_proxies: {why}"));
        }
    }
}

impl MongoDb {
    pub(super) fn check(&self, faults: &mut Vec<String>) {
        let database = &self.database;
        if database.is_empty()
            || database.len() > 63
            || !database.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
        {
            faults.push("mongodb.database must be 1..63 letters, digits, - or _".to_owned());
        }
    }
}

impl TelemetrySettings {
    pub(super) fn check(&self, faults: &mut Vec<String>) {
        if !self.otlp_endpoint.is_empty() && !is_plain_base(&self.otlp_endpoint) {
            let wanted = "http://HOST:PORT without user, path or query";
            faults.push(format!("telemetry.otlp_endpoint must be empty or {wanted}"));
        }
        if !(0.0..=1.0).contains(&self.trace_sample_ratio) {
            faults.push("telemetry.trace_sample_ratio must be in 0.0..1.0".to_owned());
        }
        if self.service_name.is_empty() {
            faults.push("telemetry.service_name must not be empty".to_owned());
        }
    }
}

fn is_plain_base(text: &str) -> bool {
    text.parse::<Uri>().is_ok_and(|uri| {
        uri.scheme_str() == Some("http")
            && uri.authority().is_some_and(|authority| !authority.as_str().contains('@'))
            && matches!(uri.path_and_query().map(PathAndQuery::as_str), None | Some("/"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults_with(given: &[(&str, &str)]) -> String {
        let given = given.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
        Settings::merge("", given).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn links_are_put_behind_a_base_that_has_no_query() {
        for (base, good) in [
            ("", true),
            ("https://id.example.com/links", true),
            ("http://127.0.0.1:8080", true),
            ("https://id.example.com/links/", false),
            ("https://id.example.com/links?from=mail", false),
            ("https://id.example.com/#links", false),
            ("https://me:word@id.example.com", false),
            ("ftp://id.example.com", false),
            ("id.example.com", false),
        ] {
            assert_eq!(faults_with(&[("ROSTER_MAIL_LINK_BASE", base)]).is_empty(), good, "{base}");
        }
    }

    #[test]
    fn links_lead_to_the_pages_of_the_public_url_unless_another_place_is_set() {
        let base = |given: &[(&str, &str)]| {
            let given = given.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned()));
            Settings::merge("", given).unwrap().link_base()
        };
        let issuer = ("ROSTER_TOKENS_ISSUER", "https://id.example.com/");
        assert_eq!(base(&[issuer]), "https://id.example.com/links");
        let own = ("ROSTER_MAIL_LINK_BASE", "https://www.example.com/account");
        assert_eq!(base(&[issuer, own]), "https://www.example.com/account");
    }

    #[test]
    fn listeners_do_not_share_a_port() {
        let listeners = |public, private| {
            faults_with(&[("ROSTER_HTTP_LISTEN", public), ("ROSTER_HTTP_PRIVATE_LISTEN", private)])
        };
        for (public, private) in [
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("10.0.0.1:80", "[::]:80"),
        ] {
            assert!(listeners(public, private).contains("must not share a port"), "{public}");
        }
        assert_eq!(listeners("10.0.0.1:80", "127.0.0.1:80"), "");
        assert_eq!(listeners("127.0.0.1:0", "127.0.0.1:0"), "");
    }

    #[test]
    fn only_known_connections_may_go_without_tls() {
        assert_eq!(faults_with(&[("ROSTER_ALLOW_PLAIN", "nats, mongodb")]), "");
        assert!(faults_with(&[("ROSTER_ALLOW_PLAIN", "all")]).contains("allow_plain must be"));
    }

    #[test]
    fn a_cap_on_mails_that_would_keep_an_owner_out_is_refused() {
        for (max, window_s, link_s, is_fine) in [
            (3, 1_800, 1_800, true),
            (3, 1_801, 1_800, false),
            (3, 3_600, 3_600, true),
            (1, 900, 1_800, true),
            (1, 901, 1_800, false),
            (2, 1_800, 1_800, true),
        ] {
            let file = format!(
                "[throttle]\nmails_max = {max}\nmails_window_s = {window_s}\n[mail]\nreset_link_s = {link_s}\n"
            );
            let merged = Settings::merge(&file, []);
            assert_eq!(merged.is_ok(), is_fine, "{file}: {merged:?}");
        }
        let long = "[mail]\ngive_up_s = 600\nnotice_interval_s = 600\n";
        let text = Settings::merge(long, []).unwrap_err().to_string();
        assert!(text.contains("mail.notice_interval_s is 600 and must be in 1..599"), "{text}");
    }

    #[test]
    fn spans_go_to_a_plain_address() {
        for (text, good) in [
            ("http://127.0.0.1:4318", true),
            ("http://collector:4318/", true),
            ("http://[::1]:4318", true),
            ("https://collector:4318", false),
            ("collector:4318", false),
            ("http://collector:4318/v1/traces", false),
            ("http://collector:4318?key=secret", false),
            ("http://me@collector:4318", false),
            ("http://", false),
        ] {
            assert_eq!(is_plain_base(text), good, "{text}");
        }
        let half = vec![("ROSTER_TELEMETRY_TRACE_SAMPLE_RATIO".to_owned(), "0.5".to_owned())];
        let settings = Settings::merge("", half).unwrap();
        assert!((settings.telemetry.trace_sample_ratio - 0.5).abs() < f64::EPSILON);
        let all = Settings::merge("[telemetry]\ntrace_sample_ratio = 1\n", []).unwrap();
        assert!((all.telemetry.trace_sample_ratio - 1.0).abs() < f64::EPSILON);
    }
}
