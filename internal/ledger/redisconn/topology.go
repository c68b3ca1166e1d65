package redisconn

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// topology finds out which server holds which keys: when the client first
// connects, again whenever a server fails or turns read-only, and now and then.
type topology struct {
	options   *Options
	universal *redis.UniversalOptions

	mu    sync.Mutex
	seeds []string // the addresses given, then those of a cluster's nodes
}

const allSlots = 16383

func (t *topology) slots(ctx context.Context) ([]redis.ClusterSlot, error) {
	t.mu.Lock()
	seeds := slices.Clone(t.seeds)
	t.mu.Unlock()
	var first error
	for _, addr := range seeds {
		slots, err := t.ask(ctx, addr)
		if err == nil && slots != nil {
			return slots, nil
		}
		if first == nil {
			first = err
		}
		if ctx.Err() != nil {
			break
		}
	}
	if first == nil {
		first = errors.New("none of them is a primary")
	}
	return nil, first
}

// ask asks one server how the keys are spread. It returns nil if the server is a
// replica of a primary that is not a cluster.
func (t *topology) ask(ctx context.Context, addr string) ([]redis.ClusterSlot, error) {
	if t.options.SentinelMaster != "" {
		primary, err := t.askSentinel(ctx, addr)
		if err != nil {
			return nil, err
		}
		return oneServer(primary), nil
	}
	client := redis.NewClient(t.oneOff(addr))
	defer func() { _ = client.Close() }() // it was for these questions only
	//nolint:staticcheck // CLUSTER SHARDS, which the library prefers, needs Redis 7
	slots, err := client.ClusterSlots(ctx).Result()
	if err == nil && len(slots) > 0 {
		t.learn(addr, slots)
		return slots, nil
	}
	if t.options.Cluster || err != nil && !is[redis.Error](err) {
		return nil, err
	}
	role, err := roleOf(ctx, client)
	if err != nil || role != "master" {
		return nil, err
	}
	return oneServer(addr), nil
}

func oneServer(addr string) []redis.ClusterSlot {
	return []redis.ClusterSlot{{Start: 0, End: allSlots, Nodes: []redis.ClusterNode{{Addr: addr}}}}
}

// learn completes the addresses of a cluster's nodes, and remembers them: the ones
// that were given may go away.
func (t *topology) learn(origin string, slots []redis.ClusterSlot) {
	host, _, err := net.SplitHostPort(origin)
	if err != nil {
		return
	}
	seeds := slices.Clone(t.options.Addrs)
	for _, slot := range slots {
		for i, node := range slot.Nodes {
			// A server that does not know its own address leaves it out.
			if strings.HasPrefix(node.Addr, ":") {
				slot.Nodes[i].Addr = host + node.Addr
			}
			if !slices.Contains(seeds, slot.Nodes[i].Addr) && len(seeds) < 32 {
				seeds = append(seeds, slot.Nodes[i].Addr)
			}
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.seeds = seeds
}

// roleOf asks in a way that any user may.
func roleOf(ctx context.Context, client *redis.Client) (string, error) {
	hello, err := client.Do(ctx, "HELLO", "2").Slice()
	for i := 0; i+1 < len(hello); i += 2 {
		if hello[i] == "role" {
			return fmt.Sprint(hello[i+1]), err
		}
	}
	return "", err
}

// oneOff returns the options of a client that asks one server a few questions.
func (t *topology) oneOff(addr string) *redis.Options {
	o := t.universal.Simple()
	o.Addr, o.DB, o.MaxRetries, o.PoolSize = addr, 0, -1, 1
	return o
}

// askSentinel asks a Sentinel for the primary's address.
func (t *topology) askSentinel(ctx context.Context, addr string) (string, error) {
	ask := func(username, password string) (string, error) {
		o := t.oneOff(addr)
		o.CredentialsProviderContext = func(context.Context) (string, string, error) { return username, password, nil }
		client := redis.NewSentinelClient(o)
		defer func() { _ = client.Close() }() // it was for this question only
		answer, err := client.GetMasterAddrByName(ctx, t.options.SentinelMaster).Result()
		switch {
		case errors.Is(err, redis.Nil):
			return "", audit.SettingsErrorf("check --redis-sentinel-master", "sentinel at %s: it watches no master called %s", addr, t.options.SentinelMaster)
		case err != nil:
			return "", fmt.Errorf("sentinel at %s: %w", addr, err)
		case len(answer) != 2:
			return "", fmt.Errorf("sentinel at %s: answer of %d parts", addr, len(answer))
		}
		return net.JoinHostPort(answer[0], answer[1]), nil
	}
	credentials := t.options.SentinelCredentials
	if credentials == nil {
		primary, err := ask("", "")
		if !denied(err) {
			return primary, err
		}
		credentials = t.options.Credentials
	}
	var refused error
	for _, fresh := range []bool{false, true} {
		username, password, err := credentials(ctx, fresh)
		if err != nil {
			return "", err
		}
		primary, err := ask(username, password)
		if !denied(err) {
			return primary, err
		}
		refused = err
	}
	return "", audit.NewSettingsError(refused, "set RELAY_REDIS_SENTINEL_PASSWORD, and RELAY_REDIS_SENTINEL_USERNAME for an ACL user")
}
