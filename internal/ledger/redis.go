package ledger

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// RedisOptions say where a ledger in Redis is, and whose it is.
type RedisOptions struct {
	// Addrs are host:port; a port left out is 6379 (26379 of a Sentinel). Several
	// are the nodes of a cluster, the Sentinels, or else a primary and its
	// replicas, of which the one that is primary at the time is used.
	Addrs    []string
	Username string
	Password string
	// Credentials, if not nil, is asked for user and password at each new
	// connection, so that a rotated password needs no restart.
	Credentials func(ctx context.Context) (username, password string, err error)
	DB          int         // not in a cluster
	TLS         *tls.Config // nil: plain TCP

	Cluster        bool   // also with one address
	SentinelMaster string // name of the primary that the Sentinels watch
	// Of the Sentinels themselves, where they ask for it.
	SentinelUsername, SentinelPassword string

	Prefix      string // of every key; "relay" if empty
	Source      string // the Kong that is read, by a name of the operator's choice
	Destination string // what it is delivered to, such as a channel's ARN

	LeaseTTL time.Duration // 0: [DefaultLease]
	// Timeout bounds connecting, and each attempt at a command; 0: 3 s. A command
	// is tried three times at most.
	Timeout time.Duration
}

// Redis is a ledger in Redis 6.0 or later, or in Valkey. Record is durable once
// it returns as far as the server's own persistence goes; what a server forgets
// is delivered again, not lost.
//
// All keys of a ledger are in one slot of a cluster, and each method that writes
// is one script or one command.
type Redis struct {
	client  redis.UniversalClient
	where   string // for errors
	prefix  string
	tls     bool
	lease   time.Duration
	pin     pin
	layouts layouts
	now     func() time.Time
}

// OpenRedis returns a ledger. It does not connect: the server may be down. It
// fails only if the options contradict each other.
func OpenRedis(ctx context.Context, o RedisOptions) (*Redis, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if o.Cluster && o.SentinelMaster != "" {
		return nil, audit.Settingsf("give one of them", "redis: cluster and sentinel exclude each other")
	}
	if o.Cluster && o.DB != 0 {
		return nil, audit.Settingsf("set REDIS_DB to 0", "redis: a cluster has only database 0")
	}
	port := "6379"
	if o.SentinelMaster != "" {
		port = "26379"
	}
	addrs := make([]string, 0, len(o.Addrs))
	for _, addr := range o.Addrs {
		if addr = strings.TrimSpace(addr); addr == "" {
			continue
		}
		if _, _, err := net.SplitHostPort(addr); err != nil {
			addr = net.JoinHostPort(strings.Trim(addr, "[]"), port)
		}
		addrs = append(addrs, addr)
	}
	if len(addrs) == 0 {
		addrs = []string{"localhost:" + port}
	}
	if o.Prefix == "" {
		o.Prefix = "relay"
	}
	if o.LeaseTTL <= 0 {
		o.LeaseTTL = DefaultLease
	}
	if o.Timeout <= 0 {
		o.Timeout = 3 * time.Second
	}
	return &Redis{
		client: newClient(addrs, o),
		where:  strings.Join(addrs, ","),
		prefix: escape(o.Prefix) + ":{" + escape(o.Source) + ">" + escape(o.Destination) + "}:",
		tls:    o.TLS != nil,
		lease:  o.LeaseTTL,
		now:    time.Now,
	}, nil
}

// escape keeps braces out of a name: the first pair of a key is its hash tag.
func escape(s string) string {
	return strings.NewReplacer("%", "%25", "{", "%7B", "}", "%7D").Replace(s)
}

func newClient(addrs []string, o RedisOptions) redis.UniversalClient {
	u := &redis.UniversalOptions{
		Addrs:                      addrs,
		MasterName:                 o.SentinelMaster,
		IsClusterMode:              o.Cluster,
		DB:                         o.DB,
		Username:                   o.Username,
		Password:                   o.Password,
		CredentialsProviderContext: o.Credentials,
		SentinelUsername:           o.SentinelUsername,
		SentinelPassword:           o.SentinelPassword,
		TLSConfig:                  o.TLS,
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
		DisableIdentity:            true, // needs rights that an ACL user may not have
		MaintNotificationsConfig:   &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
	switch {
	case o.SentinelMaster != "":
		return redis.NewFailoverClient(u.Failover())
	case o.Cluster:
		return findAgain(redis.NewClusterClient(u.Cluster()))
	case len(addrs) > 1:
		return newListClient(u)
	}
	return redis.NewClient(u.Simple())
}

// newListClient returns a client for addresses of which nobody said what they
// are: the nodes of a cluster, or a primary and its replicas. It finds out when
// it first connects, and again whenever a server fails or turns read-only.
func newListClient(u *redis.UniversalOptions) redis.UniversalClient {
	o := u.Cluster()
	o.NewClient = func(n *redis.Options) *redis.Client {
		n.DB = u.DB
		if strings.HasPrefix(n.Addr, ":") { // the client took a loopback address apart
			n.Addr = "127.0.0.1" + n.Addr
		}
		return redis.NewClient(n)
	}
	o.ClusterSlots = func(ctx context.Context) ([]redis.ClusterSlot, error) {
		var first error
		for _, addr := range u.Addrs {
			single := u.Simple()
			single.Addr, single.DB, single.MaxRetries, single.PoolSize = addr, 0, -1, 1
			slots, err := layout(ctx, single)
			if err == nil && slots != nil {
				return slots, nil
			}
			if first == nil {
				first = err
			}
		}
		if first == nil {
			first = fmt.Errorf("none of them is a primary")
		}
		return nil, first
	}
	return findAgain(redis.NewClusterClient(o))
}

// findAgain makes a client look at once for where the keys are when a server is
// gone. By itself it would only do so after ten seconds or more.
func findAgain(c *redis.ClusterClient) *redis.ClusterClient {
	c.AddHook(reloader{c})
	return c
}

type reloader struct{ cluster *redis.ClusterClient }

func (r reloader) DialHook(next redis.DialHook) redis.DialHook { return next }

func (r reloader) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if unreachable(err) {
			r.cluster.ReloadState(ctx)
		}
		return err
	}
}

func (r reloader) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := next(ctx, cmds)
		if unreachable(err) {
			r.cluster.ReloadState(ctx)
		}
		return err
	}
}

// layout asks one server how the keys are spread. It returns nil if the server is
// a replica of a primary that is no cluster.
func layout(ctx context.Context, o *redis.Options) ([]redis.ClusterSlot, error) {
	client := redis.NewClient(o)
	defer func() { _ = client.Close() }() // it was for these questions only
	//nolint:staticcheck // CLUSTER SHARDS, which the library prefers, needs Redis 7
	if slots, err := client.ClusterSlots(ctx).Result(); err == nil && len(slots) > 0 {
		host, _, err := net.SplitHostPort(o.Addr)
		if err != nil {
			return nil, err
		}
		for _, slot := range slots {
			for i, node := range slot.Nodes {
				// A server that does not know its own address leaves it out.
				if strings.HasPrefix(node.Addr, ":") {
					slot.Nodes[i].Addr = host + node.Addr
				}
			}
		}
		return slots, nil
	}
	role, err := client.Do(ctx, "ROLE").Slice()
	if err != nil {
		return nil, err
	}
	if len(role) == 0 || role[0] != "master" {
		return nil, nil
	}
	return []redis.ClusterSlot{{Start: 0, End: 16383, Nodes: []redis.ClusterNode{{Addr: o.Addr}}}}, nil
}

// LogTo sends what the Redis client says by itself (connections, failovers) to a
// log, at debug level, instead of to standard error. The client has one logger
// for the whole process, so this is for main to call, before anything is opened.
func LogTo(log *slog.Logger) {
	redis.SetLogger(clientLog{log})
}

type clientLog struct{ log *slog.Logger }

// Printf does what the client's logger interface asks for.
func (l clientLog) Printf(ctx context.Context, format string, v ...any) {
	if l.log.Enabled(ctx, slog.LevelDebug) {
		l.log.DebugContext(ctx, "redis client", "text", fmt.Sprintf(format, v...))
	}
}

// Ping asks the server for a sign of life.
func (r *Redis) Ping(ctx context.Context) error {
	return r.wrap("pinging", r.client.Ping(ctx).Err())
}

// Close closes the connections.
func (r *Redis) Close() error {
	return r.client.Close()
}

// Check looks at the server's settings. It refuses an eviction policy that would
// evict dead letters and marks, and returns a sentence for each lesser worry.
func (r *Redis) Check(ctx context.Context) (warnings []string, err error) {
	ask := func(ctx context.Context, c redis.UniversalClient) (string, error) {
		info, err := c.Info(ctx, "memory").Result()
		if unknown(err) {
			return "", nil // which tells no policy
		}
		return info, err
	}
	var infos []string
	if cluster, ok := r.client.(*redis.ClusterClient); ok {
		answers := make(chan string, 1000)
		err = cluster.ForEachMaster(ctx, func(ctx context.Context, c *redis.Client) error {
			info, err := ask(ctx, c)
			if err == nil {
				answers <- info
			}
			return err
		})
		close(answers)
		for info := range answers {
			infos = append(infos, info)
		}
	} else {
		var info string
		info, err = ask(ctx, r.client)
		infos = append(infos, info)
	}
	if forbidden(err) {
		return []string{"redis does not let this user see its eviction policy: make sure that it is noeviction"}, nil
	}
	if err != nil {
		return nil, r.wrap("asking the server for its settings", err)
	}
	for _, info := range infos {
		policy := ""
		for line := range strings.Lines(info) {
			if v, ok := strings.CutPrefix(line, "maxmemory_policy:"); ok {
				policy = strings.TrimSpace(v)
			}
		}
		switch {
		case strings.HasPrefix(policy, "allkeys-"):
			return nil, audit.Settingsf("set maxmemory-policy to noeviction, or give the ledger a Redis of its own",
				"redis at %s: %w: %s", r.where, audit.ErrEvicting, policy)
		case strings.HasPrefix(policy, "volatile-"):
			warnings = append(warnings, "redis evicts by "+policy+" when it is full: what it evicts is delivered again")
		case policy == "":
			warnings = append(warnings, "redis does not tell its eviction policy: make sure that it is noeviction")
		}
	}
	return warnings, nil
}
