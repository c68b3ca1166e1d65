package app

import (
	"crypto/tls"
	"crypto/x509"
	"maps"
	"slices"
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
	if config == nil {
		return config
	}
	config = config.Clone()
	for i := range config.Certificates {
		if leaf := config.Certificates[i].Leaf; leaf != nil {
			c.note("relay for "+of, leaf.NotAfter)
		}
	}
	config.VerifyConnection = func(state tls.ConnectionState) error {
		if len(state.PeerCertificates) > 0 {
			first := slices.MinFunc(state.PeerCertificates, func(a, b *x509.Certificate) int { return a.NotAfter.Compare(b.NotAfter) })
			c.note(of, first.NotAfter)
		}
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
	a.certificates.mu.Lock()
	defer a.certificates.mu.Unlock()
	return maps.Clone(a.certificates.until)
}
