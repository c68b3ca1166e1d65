package redisconn

import (
	"context"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

// Check looks at the server's settings. It refuses an eviction policy that would
// evict dead letters and marks, and returns a sentence for each lesser worry.
func (c *Client) Check(ctx context.Context) (warnings []string, err error) {
	infos, err := c.infos(ctx)
	if refused(err, "NOPERM") {
		return []string{"redis does not let this user see its eviction policy: make sure that it is noeviction"}, nil
	}
	if err != nil {
		return nil, c.Wrap("asking the server for its settings", err)
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
			return nil, audit.SettingsErrorf("set maxmemory-policy to noeviction, or give the ledger a Redis of its own",
				"redis at %s: %w: %s", c.Where, audit.ErrEvicting, policy)
		case strings.HasPrefix(policy, "volatile-"):
			warnings = append(warnings, "redis evicts by "+policy+" when it is full: what it evicts is delivered again")
		case policy == "":
			warnings = append(warnings, "redis does not tell its eviction policy: make sure that it is noeviction")
		}
	}
	return warnings, nil
}

// infos returns the memory section of each primary's INFO.
func (c *Client) infos(ctx context.Context) (infos []string, err error) {
	ask := func(ctx context.Context, c redis.Cmdable) (string, error) {
		info, err := c.Info(ctx, "memory").Result()
		if Unknown(err) {
			return "", nil // it does not show the policy
		}
		return info, err
	}
	cluster, ok := c.UniversalClient.(*redis.ClusterClient)
	if !ok {
		info, err := ask(ctx, c)
		return []string{info}, err
	}
	var mu sync.Mutex
	err = cluster.ForEachMaster(ctx, func(ctx context.Context, c *redis.Client) error {
		info, err := ask(ctx, c)
		mu.Lock()
		defer mu.Unlock()
		infos = append(infos, info)
		return err
	})
	return infos, err
}
