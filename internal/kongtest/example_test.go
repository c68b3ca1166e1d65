package kongtest_test

import (
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/kong-cloudtrail/relay/internal/kongtest"
	"github.com/kong-cloudtrail/relay/internal/kongtest/auditlog"
)

func Example() {
	kong := kongtest.New(kongtest.Options{
		Token:     "development-only",
		SkipReads: true,
		Chances:   []kongtest.Chance{{P: 0.05, Fault: kongtest.Fault{Truncate: true}}},
		Seed:      1,
	})
	kong.AddSeq(auditlog.Generate(20_000, 1, auditlog.Mix{To: time.Now()}))
	kong.Inject(kongtest.Fault{Status: http.StatusServiceUnavailable}) // the first page

	address, err := kong.Start()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer kong.Close()

	req, err := http.NewRequest(http.MethodGet, address+"/audit/requests?size=1000", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	req.Header.Set("Kong-Admin-Token", "development-only")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	fmt.Println(res.StatusCode, string(body), err)
	fmt.Println(kong.Len(), kong.Stats().Faulty)
	// Output:
	// 503 {"message":"Service Unavailable"} <nil>
	// 20000 1
}
