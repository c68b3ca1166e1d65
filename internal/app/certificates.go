package app

import (
	"crypto/tls"
	"maps"
	"sync"
	"time"
)

// certificates holds the expiry of the certificates that were last seen, by owner.
type certificates struct {
	mu    sync.Mutex
	until map[string]time.Time
}

// watch returns a copy of a configuration that notes the certificates of each
// connection; nil for nil. Its own certificate is noted as one of the relay's.
func (c *certificates) watch(of string, config *tls.Config) *tls.Config {
	if config == nil || c == nil {
		return config
	}
	config = config.Clone()
	for i := range config.Certificates {
		if leaf := config.Certificates[i].Leaf; leaf != nil {
			c.note("relay for "+of, leaf.NotAfter)
		}
	}
	config.VerifyConnection = func(state tls.ConnectionState) error {
		first := time.Time{}
		for _, cert := range state.PeerCertificates {
			if first.IsZero() || cert.NotAfter.Before(first) {
				first = cert.NotAfter
			}
		}
		c.note(of, first)
		return nil
	}
	return config
}

func (c *certificates) note(of string, until time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.until == nil {
		c.until = map[string]time.Time{}
	}
	c.until[of] = until
}

// Certificates returns the expiry of the certificates of Kong, the ledger and the relay.
func (a *App) Certificates() map[string]time.Time {
	if a.certificates == nil {
		return nil
	}
	a.certificates.mu.Lock()
	defer a.certificates.mu.Unlock()
	return maps.Clone(a.certificates.until)
}
