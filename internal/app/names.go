package app

import (
	"cmp"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/kong-cloudtrail/relay/internal/config"
)

// Names say for a person what the relay works with. They hold no secret.
type Names struct {
	Kong        string `json:"kong"`
	Ledger      string `json:"ledger"`
	Destination string `json:"destination"`
	Source      string `json:"source"`
}

// NamesOf returns the names that the settings say.
func NamesOf(s *config.Settings) Names {
	n := Names{Kong: redacted(s.KongAdminAPI), Source: s.Source}
	if s.LedgerFile != "" {
		n.Ledger = "bolt:" + s.LedgerFile
	} else {
		n.Ledger = "redis at " + strings.Join(s.RedisAddrs, ",")
	}
	switch s.Destination {
	case config.ToCloudTrail:
		n.Destination = s.ChannelARN
	case config.ToCloudWatch:
		n.Destination = "log group " + s.LogGroup + ", stream " + s.LogStream + ", " + s.Region
	case config.ToJSONL:
		n.Destination = "jsonl:" + s.JSONLFile
	}
	return n
}

// redacted returns a URL without its user and password.
func redacted(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return ""
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	return u.String()
}

// Setting is a setting as it is in force.
type Setting struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// SettingsOf returns the settings that tell how the relay works, without secrets.
func SettingsOf(s *config.Settings) []Setting {
	n := NamesOf(s)
	onOff := func(on bool) string {
		if on {
			return "on"
		}
		return "off"
	}
	set := func(secret config.Secret) string {
		if secret.IsSet() {
			return "set"
		}
		return "not set"
	}
	address := func(listen string) string {
		if listen == "" {
			return "off"
		}
		return listen
	}
	list := []Setting{
		{"kong-admin-api", n.Kong},
		{"kong-superadmin", onOff(s.KongSendToken)},
		{"kong-admin-token", set(s.KongToken)},
		{"kong-timeout", s.KongTimeout.String()},
		{"ledger", n.Ledger},
		{"source", s.Source},
		{"redis-tls", onOff(s.TLSToRedis() != nil)},
		{"destination", n.Destination},
		{"put-concurrency", strconv.Itoa(s.PutConcurrency)},
		{"put-rate", strconv.Itoa(s.PutRate) + "/s"},
		{"retry-for", s.RetryFor.String()},
		{"redact", onOff(len(s.Redact) > 0)},
		{"skip-own-reads", onOff(s.SkipOwnReads)},
		{"objects", onOff(s.Objects)},
		{"schedule", s.Schedule.String()},
		{"listen", address(s.Listen)},
		{"trigger-secret", set(s.TriggerSecret)},
		{"ops-listen", address(s.OpsListen)},
	}
	return list
}

// Plural counts things: "1 page", "2 pages".
func Plural(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	if stem, ok := strings.CutSuffix(one, "y"); ok {
		return fmt.Sprintf("%d %sies", n, stem)
	}
	return fmt.Sprintf("%d %ss", n, one)
}

// OrDash returns s, or a dash if it is empty.
func OrDash(s string) string { return cmp.Or(s, "-") }

// Moment formats a Unix second for a person, 0 as the empty string.
func Moment(second int64) string {
	if second == 0 {
		return ""
	}
	return time.Unix(second, 0).UTC().Format(time.RFC3339)
}
