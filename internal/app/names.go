package app

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/kong-cloudtrail/relay/internal/config"
)

// Names name Kong, ledger and destination for a person. They hold no secret.
type Names struct {
	Kong        string `json:"kong"`
	Ledger      string `json:"ledger"`
	Destination string `json:"destination"`
	Source      string `json:"source"`
}

// NamesOf returns the names for the settings, which accept no URL with a password.
func NamesOf(s *config.Settings) Names {
	n := Names{Kong: s.KongAdminAPI, Source: s.Source}
	if s.LedgerFile != "" {
		n.Ledger = "bolt:" + s.LedgerFile
	} else {
		n.Ledger = "redis at " + strings.Join(s.RedisAddrs, ",")
	}
	if kind, err := kindOf(s); err == nil {
		n.Destination = kind.label(s)
	}
	return n
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
