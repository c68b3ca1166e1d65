package redact

import (
	"strings"
	"testing"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

func TestSecretsOfEntities(t *testing.T) {
	const secret = "Tr0ub4dor-and-three"
	for _, e := range []audit.Entry{
		{Path: "/consumers/ann/key-auth", Payload: `{"key":"` + secret + `","tags":["a"]}`},
		{Path: "/payments/consumers/ann/basic-auth/1", Payload: `{"username":"ann","password":"` + secret + `"}`},
		{Path: "/plugins", Payload: `{"name":"session","config":{"secret":"` + secret + `"}}`},
		{Path: "/certificates/a.b", Payload: `{"cert":"x","key":"` + secret + `"}`},
		{Path: "/services?api_key=" + secret + "&size=1"},
		{Path: "/services?size=1;api_key=" + secret},
		{Path: "/services?api%255Fkey=" + secret},
		{Path: "/services?password=a;" + secret},
		{Path: "/services?api_key;x=" + secret},
		{Path: "/services", Unknown: `{"request_body":{"password":"` + secret + `"}}`},
	} {
		New([]string{Secrets})(&e)
		if strings.Contains(e.Path+e.Payload+e.Unknown, secret) || e.Withheld != "" {
			t.Errorf("%s %s %s %s", e.Path, e.Payload, e.Unknown, e.Withheld)
		}
	}
	plain := audit.Entry{Path: "/routes/orders?size=1", Payload: `{"paths":["/a"],"name":"orders"}`}
	was := plain
	if New([]string{Secrets, "config.x"})(&plain); plain != was {
		t.Errorf("%+v", plain)
	}
	if New([]string{"key"})(&plain); plain != was {
		t.Errorf("%+v", plain)
	}
}
