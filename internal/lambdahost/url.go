package lambdahost

import (
	"context"
	"io"
	"net/http"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambdaurl"

	"github.com/kong-cloudtrail/relay/internal/app"
	"github.com/kong-cloudtrail/relay/internal/trigger"
)

// urlHandler returns the handler of triggers at the function's URL, which checks them as the
// listener of relay serve does. A function cannot go on after its answer, so the handler notes
// the ids, invokes the function for them, and then answers 202. Without a secret it refuses
// every trigger.
func (h *host) urlHandler() http.Handler {
	o := h.app.TriggerOptions()
	o.Notify = func(ctx context.Context, ids []string) error {
		now := time.Now()
		if err := h.app.Store.Announce(ctx, ids, now); err != nil {
			return err
		}
		return h.invokeForIDs(ctx, ids, now)
	}
	o.Poll = func() { h.pollWanted = true }
	return trigger.NewHandler(o)
}

// invokeForIDs invokes the function for ids that were announced at a time, or for a poll
// if there are none.
func (h *host) invokeForIDs(ctx context.Context, ids []string, at time.Time) error {
	body := trigger.Body{RequestIDs: append([]string{}, ids...), SentAt: at.UTC()} // an empty list, not null
	return invokeSelf(ctx, &h.app.Settings, h.env.Getenv, trigger.Invocation{Trigger: &body})
}

// pollEvery is the least time between two invocations for polls without ids, in each
// environment.
const pollEvery = time.Second

// passPollOn invokes the function if the request just answered asked for a poll. An environment
// gets one request at a time.
func (h *host) passPollOn(ctx context.Context) {
	now := time.Now().Round(0) // by the wall clock, since the process is frozen between requests
	if !h.pollWanted || now.Sub(h.polled) < pollEvery {
		return
	}
	h.pollWanted, h.polled = false, now
	if err := h.invokeForIDs(ctx, nil, now); err != nil {
		h.log.Warn("poll not passed on, the schedule makes up for it", app.ErrorAttrs(err)...)
	}
}

func (h *host) serveURL(ctx context.Context, in *events.LambdaFunctionURLRequest) events.LambdaFunctionURLResponse {
	answer, err := lambdaurl.Wrap(h.urls)(ctx, in)
	if err != nil {
		return events.LambdaFunctionURLResponse{
			StatusCode: http.StatusBadRequest, Headers: map[string]string{"Content-Type": "application/json"}, Body: `{"reason":"request could not be read"}` + "\n",
		}
	}
	body, _ := io.ReadAll(answer.Body) // never fails
	h.passPollOn(ctx)                  // the handler has ended with the body
	return events.LambdaFunctionURLResponse{StatusCode: answer.StatusCode, Headers: answer.Headers, Body: string(body)}
}
