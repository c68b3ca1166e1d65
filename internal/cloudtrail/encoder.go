package cloudtrail

import "github.com/kong-cloudtrail/relay/internal/audit"

// NewEncoder returns a function that maps an entry to its event, for destinations that are
// not a channel but hold the same events. hostname is the Admin API's URL as configured;
// account is the recipient's, and may be empty.
func NewEncoder(hostname, account string, errorCodes bool) (audit.Encode, error) {
	hostname, err := withoutUserinfo(hostname)
	if err != nil {
		return nil, err
	}
	d := &Destination{mapping: mapping{account: account, hostname: hostname, errorCodes: errorCodes}}
	return d.AppendEvent, nil
}
