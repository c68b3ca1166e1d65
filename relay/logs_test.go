package main

import (
	"net/http/httptest"
	"testing"

	"github.com/kong-cloudtrail/relay/internal/cloudtrailtest"
	"github.com/kong-cloudtrail/relay/internal/cloudwatchtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest"
)

// newLogsWorld is a world whose destination is CloudWatch Logs.
func newLogsWorld(tb testing.TB, kong kongtest.Options, logs cloudwatchtest.Options) (*world, *cloudwatchtest.Server) {
	tb.Helper()
	w := newWorld(tb, kong, cloudtrailtest.Options{})
	return w, w.deliverToLogs(logs)
}

// deliverToLogs makes CloudWatch Logs the destination of a world.
func (w *world) deliverToLogs(o cloudwatchtest.Options) *cloudwatchtest.Server {
	s := cloudwatchtest.New(o)
	server := httptest.NewServer(s)
	w.tb.Cleanup(server.Close)
	w.instead("CHANNEL_ARN=", "RELAY_LOG_GROUP="+cloudwatchtest.Group, "AWS_ENDPOINT_URL_CLOUDWATCH_LOGS="+server.URL)
	return s
}
