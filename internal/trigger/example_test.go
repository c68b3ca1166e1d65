package trigger_test

import (
	"context"
	"fmt"
	"log"
	"net/http/httptest"

	"github.com/kong-cloudtrail/relay/internal/trigger"
)

// A relay accepts triggers with NewHandler, and a gateway sends them with a
// Client. Both know the secret.
func Example() {
	const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

	relay := httptest.NewServer(trigger.NewHandler(trigger.Options{
		Secrets: func(string, bool) []string { return []string{secret} },
		Notify: func(_ context.Context, ids []string) error {
			fmt.Println("announced:", ids)
			return nil
		},
	}))
	defer relay.Close()

	client, err := trigger.NewClient(trigger.ClientOptions{URL: relay.URL, Secret: secret})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	if err := client.Notify(context.Background(), []string{"QUtUa3RMbRLxomqcL68ilOjjl68h56xr"}); err != nil {
		log.Fatal(err)
	}

	// Output:
	// announced: [QUtUa3RMbRLxomqcL68ilOjjl68h56xr]
}

// A trigger that is signed with another secret is refused, and sending it again
// would not help.
func ExampleClient_Notify_refused() {
	relay := httptest.NewServer(trigger.NewHandler(trigger.Options{
		Secrets: func(string, bool) []string { return []string{"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"} },
		Notify:  func(context.Context, []string) error { return nil },
	}))
	defer relay.Close()

	client, err := trigger.NewClient(trigger.ClientOptions{URL: relay.URL, Secret: "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwd"})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	err = client.Notify(context.Background(), nil)
	fmt.Println(err)
	fmt.Println("final:", trigger.Final(err))

	// Output:
	// triggering the relay: refused with 401: signature does not match
	// final: true
}

// CheckSecret says what is wrong with a secret and how to make a good one.
func ExampleCheckSecret() {
	fmt.Println(trigger.CheckSecret("hunter2"))

	// Output:
	// the secret does not begin with "whsec_": want "whsec_" and the base64 of 24 to 64 random bytes, as from: echo "whsec_$(openssl rand -base64 32)"
}
