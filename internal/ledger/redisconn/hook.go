package redisconn

import (
	"context"
	"sync/atomic"

	"github.com/redis/go-redis/v9"
)

// access asks for credentials.
type access struct {
	credentials Credentials
	refused     atomic.Bool // since they were last asked for
}

// ask is what the client calls for each new connection.
func (a *access) ask(ctx context.Context) (username, password string, err error) {
	return a.credentials(ctx, a.refused.Swap(false))
}

// hook tries a command once more with fresh credentials if the server refused
// those that it was given, and makes a client look at once for where the keys are
// when a server is gone. By itself the client would only do so after ten seconds
// or more.
type hook struct {
	access *access
	reload func(ctx context.Context) // nil for a single server
}

// DialHook implements [redis.Hook].
func (h hook) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessHook implements [redis.Hook].
func (h hook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		return h.after(ctx, next(ctx, cmd), func() error {
			cmd.SetErr(nil)
			return next(ctx, cmd)
		})
	}
}

// ProcessPipelineHook implements [redis.Hook].
func (h hook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		return h.after(ctx, next(ctx, cmds), func() error {
			for _, cmd := range cmds {
				cmd.SetErr(nil)
			}
			return next(ctx, cmds)
		})
	}
}

func (h hook) after(ctx context.Context, err error, again func() error) error {
	if denied(err) {
		h.access.refused.Store(true)
		err = again()
	}
	if h.reload != nil && unreachable(err) {
		h.reload(ctx)
	}
	return err
}
