package kongtest_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/kong-cloudtrail/relay/internal/kongtest"
)

// A rolling upgrade: two nodes behind one address, of which only one can filter.
func ExampleNode() {
	kong := kongtest.New(kongtest.Options{
		SkipReads: true,
		Nodes: []kongtest.Node{
			{Hostname: "kong-3.9"},
			{Hostname: "kong-2.8", Differs: func(o *kongtest.Options) { o.Order, o.Strict = kongtest.Unordered, true }},
		},
	})
	for range 2 {
		w := httptest.NewRecorder()
		kong.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/audit/requests?after=1", nil))
		fmt.Println(w.Code)
	}
	// Output:
	// 200
	// 400
}

// Another Kong, an empty one, gets the address of the first.
func ExampleServer_Replace() {
	kong := kongtest.New(kongtest.Options{SkipReads: true})
	kong.Add(kongtest.Row{RequestID: "a", RequestTimestamp: time.Now().Unix()})
	kong.Replace(kongtest.New(kongtest.Options{}))
	w := httptest.NewRecorder()
	kong.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/audit/requests", nil))
	fmt.Println(w.Body)
	// Output:
	// {"data":[],"next":null}
}

func Example() {
	kong := kongtest.New(kongtest.Options{
		Token:     "development-only",
		SkipReads: true,
		Chances:   []kongtest.Chance{{P: 0.05, Fault: kongtest.Fault{Truncate: true}}},
		Seed:      1,
	})
	kong.AddSeq(kongtest.Generate(20_000, 1, kongtest.Mix{To: time.Now()}))
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
