package audit

import (
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// StoredEvent is an event in a destination.
type StoredEvent struct {
	UID   string // of the entry; empty for a line that is not an event of a relay
	Time  int64  // Unix seconds: the entry's own time
	Times int    // how often the destination holds it
}

// ReadStoredEvent reads what identifies an event that was written in either format. Its UID
// is empty if the text is not such an event.
func ReadStoredEvent(text []byte) StoredEvent {
	var e struct {
		UID       string `json:"UID"`
		EventTime string `json:"eventTime"`
		Metadata  struct {
			UID string `json:"uid"`
		} `json:"metadata"`
		Time int64 `json:"time"` // milliseconds
	}
	if err := json.Unmarshal(text, &e, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)); err != nil {
		return StoredEvent{}
	}
	switch {
	case e.UID == "" && e.Metadata.UID == "":
		return StoredEvent{}
	case e.UID == "":
		return StoredEvent{UID: e.Metadata.UID, Time: e.Time / 1000, Times: 1}
	}
	at, err := time.Parse(time.RFC3339, e.EventTime)
	if err != nil {
		return StoredEvent{}
	}
	return StoredEvent{UID: e.UID, Time: at.Unix(), Times: 1}
}
