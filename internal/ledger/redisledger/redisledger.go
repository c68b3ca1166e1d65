// Package redisledger is a ledger in Redis, for any number of relays.
package redisledger

import (
	"cmp"
	"context"
	"strings"
	"sync/atomic"
	"time"

	"github.com/kong-cloudtrail/relay/internal/audit"
	"github.com/kong-cloudtrail/relay/internal/ledger"
	"github.com/kong-cloudtrail/relay/internal/ledger/redisconn"
)

// Options identify a ledger among those of a server.
type Options struct {
	Prefix      string // of every key; "relay" if empty
	Source      string // a name for the Kong that is read
	Destination string // a name for what it is delivered to, such as a channel's ARN

	LeaseTTL time.Duration // 0: [ledger.DefaultLease]
}

// Ledger is a ledger in Redis 6.0 or later, or in Valkey. What Record has stored is as
// durable as the server's persistence makes it. What a server forgets is delivered again,
// and not lost.
//
// All keys of a ledger are in one slot of a cluster. Each write is one script or one command.
type Ledger struct {
	client   *redisconn.Client
	prefix   string
	leaseTTL time.Duration
	pin      ledger.Pin
	kong     atomic.Pointer[string] // the address that BindKong bound
	layouts  layouts
}

// Open returns a ledger in a server. It does not connect: the server may be down.
func Open(server redisconn.Options, o Options) *Ledger {
	return &Ledger{
		client:   redisconn.New(server),
		prefix:   escape(cmp.Or(o.Prefix, "relay")) + ":{" + escape(o.Source) + ">" + escape(o.Destination) + "}:",
		leaseTTL: cmp.Or(o.LeaseTTL, ledger.DefaultLease),
	}
}

// escape keeps braces out of a name: the first {…} of a key is its hash tag.
func escape(s string) string {
	return strings.NewReplacer("%", "%25", "{", "%7B", "}", "%7D").Replace(s)
}

func (r *Ledger) wrap(doing string, err error) error { return r.client.Wrap(doing, err) }

// Ping returns an error if the server does not answer.
func (r *Ledger) Ping(ctx context.Context) error {
	return r.wrap("pinging", r.client.Ping(ctx).Err())
}

// Close closes the connections.
func (r *Ledger) Close() error {
	return r.client.Close()
}

// Check tries every command that the ledger's scripts use, and looks at the server's
// settings. It returns an error if the eviction policy may evict dead letters and marks, and
// a warning, which is a sentence, for each lesser problem.
func (r *Ledger) Check(ctx context.Context) (warnings []string, err error) {
	warnings, err = r.client.Check(ctx)
	if err != nil {
		return nil, err
	}
	const doing = "trying a script"
	err = tryScript.Run(ctx, r.client, r.keys("try:1", "try:2", "try:3")).Err()
	if redisconn.Unknown(err) {
		return nil, audit.NewSettingsError(r.wrap(doing, err),
			"the ledger's scripts need a server that runs them as Redis 6.0 or later does; this one lacks a command")
	}
	return warnings, r.wrap(doing, err)
}
