package delivery

import (
	"reflect"
	"strings"
	"testing"
	"unsafe"

	"github.com/kong-cloudtrail/relay/internal/audit"
)

func TestDetachedEntriesAreEqual(t *testing.T) {
	e := audit.Entry{ID: "a", RequestID: "b", Timestamp: 1, ClientIP: "c", Method: "d", Path: "e", Status: 2, TTL: 3, Workspace: "f", Payload: "g",
		RemovedFromPayload: "h", Signature: "i", RBACUserID: "j", RBACUserName: "k", RequestSource: "l", Unknown: "m", KongVersion: "n", Verification: audit.Verified}
	was := e
	if detach(&e); e != was {
		t.Errorf("%+v, was %+v", e, was)
	}
}

// Every string of an entry is copied out of its page's memory: one that is not keeps
// the whole page.
func TestDetach(t *testing.T) {
	page := strings.Repeat("x", 1000)
	var e audit.Entry
	v := reflect.ValueOf(&e).Elem()
	n := 0
	for i := range v.NumField() {
		if f := v.Field(i); f.Kind() == reflect.String && v.Type().Field(i).Name != "Verification" && v.Type().Field(i).Name != "Withheld" {
			f.SetString(page[n : n+10])
			n += 10
		}
	}
	detach(&e)
	from := uintptr(unsafe.Pointer(unsafe.StringData(page)))
	for i := range v.NumField() {
		f := v.Field(i)
		if f.Kind() != reflect.String || f.Len() == 0 {
			continue
		}
		s := f.String()
		if at := uintptr(unsafe.Pointer(unsafe.StringData(s))); at >= from && at < from+uintptr(len(page)) {
			t.Errorf("%s is a part of its page", v.Type().Field(i).Name)
		}
	}
}
