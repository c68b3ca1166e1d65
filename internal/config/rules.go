package config

import (
	"crypto/tls"
	"net"
	"slices"
	"time"

	"github.com/kong-cloudtrail/relay/internal/trigger"
)

// checkRules checks what a value alone does not show: whether a setting is missing that a
// command cannot do without, and whether settings go together.
func (l *loader) checkRules() {
	l.checkKong()
	l.checkLedger()
	l.checkDestination()
	l.checkTriggers()
	if s := &l.settings; s.StartAt.After(time.Now()) {
		s.Warn("start-at is in the future: until then nothing is delivered")
	}
}

// Warn adds a warning for the log.
func (s *Settings) Warn(text string) { s.Warnings = append(s.Warnings, text) }

// given reports whether a flag or variable says anything, right or wrong. A wrong
// value has been reported already: it must not be called missing as well.
func (l *loader) given(name string) bool {
	row := rowNamed(name)
	return row.secret != nil && l.getenv(row.variable()) != "" ||
		slices.ContainsFunc(row.flags(), func(f Flag) bool { return l.text(f) != "" })
}

func (l *loader) checkKong() {
	s := &l.settings
	if l.need&NeedKong != 0 {
		if !l.given("kong-admin-api") {
			l.problems.missing("kong-admin-api", "the address of Kong's Admin API")
		}
		if s.KongSendToken && !l.given("kong-admin-token") {
			l.problems.add("KONG_SUPERADMIN is true, but there is no token to send. " +
				"Set KONG_ADMIN_TOKEN, KONG_ADMIN_TOKEN_FILE or KONG_ADMIN_TOKEN_SECRET_ARN, or set KONG_SUPERADMIN=false.")
		}
	}
	if s.KongToken.IsSet() && !s.KongSendToken {
		s.Warn("a token for Kong is set but not sent: set KONG_SUPERADMIN=true to send it")
	}
	switch cert, key := l.given("kong-client-cert"), l.given("kong-client-key"); {
	case cert && !key:
		l.problems.missing("kong-client-key", "the key of --kong-client-cert")
	case key && !cert:
		l.problems.missing("kong-client-cert", "the certificate of --kong-client-key")
	case l.clientCert != nil && l.clientKey != nil:
		pair, err := tls.X509KeyPair(l.clientCert, l.clientKey)
		if err != nil {
			l.problems.add("--kong-client-cert (RELAY_KONG_CLIENT_CERT) and --kong-client-key (RELAY_KONG_CLIENT_KEY) " +
				"are not a certificate and its key in PEM. Name the two files that belong together.")
			break
		}
		s.KongClientCert = &pair
	}
	if l.adminURL != nil && l.adminURL.Scheme == "http" {
		if s.KongRootCA != nil || s.KongClientCert != nil {
			s.Warn("KONG_ADMIN_API is an http address: certificates for Kong are not used")
		}
		if s.KongSendToken && !trigger.LoopbackHost(l.adminURL.Hostname()) {
			s.Warn("KONG_ADMIN_API is an http address: the token is sent in clear")
		}
	}
}

func (l *loader) checkLedger() {
	s := &l.settings
	if s.RedisCA != nil || s.RedisTLSServerName != "" {
		s.RedisTLS = true
	}
	if s.RedisCluster && s.RedisSentinelMaster != "" {
		l.problems.add("--redis-cluster (RELAY_REDIS_CLUSTER) and --redis-sentinel-master (RELAY_REDIS_SENTINEL_MASTER) " +
			"do not go together. Keep the one that Redis is run with.")
	}
	if s.RedisCluster && s.RedisDB != 0 {
		l.problems.add("--redis-db (REDIS_DB) is %d, but a cluster has database 0 only. Leave it out.", s.RedisDB)
	}
}

func (l *loader) checkTriggers() {
	s := &l.settings
	if l.need&NeedTrigger == 0 {
		return
	}
	if s.Listen != "" && !s.TriggerSecret.IsSet() && !l.given("trigger-secret") && !trigger.Loopback(s.Listen) {
		l.problems.add("--listen (RELAY_LISTEN) is %s: expected a loopback address, as there is no trigger secret. "+
			"Set RELAY_TRIGGER_SECRET (make one with: echo \"whsec_$(openssl rand -base64 32)\"), or listen on 127.0.0.1.", quoteValue(s.Listen))
	}
	if _, port, _ := net.SplitHostPort(s.Listen); s.Listen != "" && s.Listen == s.OpsListen && port != "0" {
		l.problems.add("--ops-listen (RELAY_OPS_LISTEN) is %s: expected another address than --listen. Choose another port for one of them.", quoteValue(s.OpsListen))
	}
}
