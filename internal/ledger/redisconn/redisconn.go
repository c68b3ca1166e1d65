// Package redisconn connects to Redis or Valkey, however it is run: one server, a
// list of them, a cluster, or a primary that Sentinels watch.
package redisconn

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// Options say where a server is and how to speak to it.
type Options struct {
	// Addrs are host:port; a port left out is 6379 (26379 of a Sentinel). Several
	// are the nodes of a cluster, the Sentinels, or else a primary and its
	// replicas, of which the one that is primary at the time is used.
	Addrs       []string
	Credentials Credentials // nil: none
	DB          int         // not in a cluster
	// TLS is nil for plain TCP. Where it names no server, a certificate must be for
	// the host of Addrs, or for the one that a cluster or a Sentinel names.
	TLS *tls.Config

	Cluster        bool   // also with one address
	SentinelMaster string // name of the primary that the Sentinels watch; not with Cluster
	// SentinelCredentials are those of the Sentinels themselves. If it is nil, and
	// the Sentinels ask for a password, they get that of the server.
	SentinelCredentials Credentials

	// Timeout bounds connecting, and each attempt at a command; 0: 3 s. A command
	// is tried three times at most.
	Timeout time.Duration
}

// Credentials is asked for user and password at each new connection. fresh is set once a
// server has refused what it returned: then it should read them again, as they may have been
// rotated.
type Credentials func(ctx context.Context, fresh bool) (username, password string, err error)

// Client is a connection to a server, or to all that stand for it.
type Client struct {
	redis.UniversalClient
	Where string // the addresses, for errors
	tls   bool
}

// New returns a client. It does not connect: the server may be down.
func New(o Options) *Client {
	if o.Timeout <= 0 {
		o.Timeout = 3 * time.Second
	}
	if o.Credentials == nil {
		o.Credentials = func(context.Context, bool) (string, string, error) { return "", "", nil }
	}
	o.Addrs = withPorts(o.Addrs, o.SentinelMaster != "")
	dial := newDialer(&o)
	access := &access{credentials: o.Credentials}
	u := universal(&o, dial, access)
	c := &Client{Where: strings.Join(o.Addrs, ","), tls: o.TLS != nil}
	if len(o.Addrs) == 1 && !o.Cluster && o.SentinelMaster == "" {
		single := redis.NewClient(u.Simple())
		single.AddHook(hook{access: access})
		c.UniversalClient = single
		return c
	}
	t := &topology{options: &o, universal: u, seeds: o.Addrs}
	co := u.Cluster()
	co.ClusterSlots = t.slots
	co.NewClient = func(n *redis.Options) *redis.Client {
		n.DB = o.DB
		if strings.HasPrefix(n.Addr, ":") { // the client took a loopback address apart
			n.Addr = "127.0.0.1" + n.Addr
		}
		return redis.NewClient(n)
	}
	cluster := redis.NewClusterClient(co)
	cluster.AddHook(hook{access: access, reload: cluster.ReloadState})
	c.UniversalClient = cluster
	return c
}

// withPorts completes addresses.
func withPorts(given []string, sentinel bool) []string {
	port := "6379"
	if sentinel {
		port = "26379"
	}
	addrs := slices.Clone(given)
	for i, addr := range addrs {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			addrs[i] = net.JoinHostPort(strings.Trim(addr, "[]"), port)
		}
	}
	return addrs
}

func universal(o *Options, dial dialFunc, a *access) *redis.UniversalOptions {
	return &redis.UniversalOptions{
		Addrs:                      o.Addrs,
		DB:                         o.DB,
		CredentialsProviderContext: a.ask,
		Dialer:                     dial,
		Protocol:                   2,
		DialTimeout:                o.Timeout,
		DialerRetries:              1,
		ReadTimeout:                o.Timeout,
		WriteTimeout:               o.Timeout,
		ContextTimeoutEnabled:      true,
		MaxRetries:                 2,
		MaxRedirects:               4,
		MinRetryBackoff:            20 * time.Millisecond,
		MaxRetryBackoff:            500 * time.Millisecond,
		PoolSize:                   8,
		PipelinePoolSize:           -1,
		ConnMaxIdleTime:            5 * time.Minute,
		DisableIdentity:            true, // needs rights that an ACL user may not have
		MaintNotificationsConfig:   &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
}

// LogTo sends what the Redis client logs (connections, failovers) to a log, at
// debug level, instead of to standard error. The client has one logger for the
// whole process, so this is for main to call, before anything is opened.
func LogTo(log *slog.Logger) {
	redis.SetLogger(clientLog{log})
}

type clientLog struct{ log *slog.Logger }

// Printf implements the client's logger interface.
func (l clientLog) Printf(ctx context.Context, format string, v ...any) {
	if l.log.Enabled(ctx, slog.LevelDebug) {
		l.log.DebugContext(ctx, "redis client", "text", fmt.Sprintf(format, v...))
	}
}
