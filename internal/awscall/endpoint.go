package awscall

import (
	"net/url"
	"strings"
)

// awsDomains are the domains of AWS's endpoints: in any of them a Region, an account
// and a name say which resource is meant.
var awsDomains = []string{
	"amazonaws.com", "amazonaws.com.cn", "amazonaws.eu", "api.aws", "api.amazonwebservices.com.cn", "api.amazonwebservices.eu", "on.aws",
	"c2s.ic.gov", "sc2s.sgov.gov", "cloud.adc-e.uk", "csp.hci.ic.gov",
}

// OtherEndpoint returns the scheme and host of an endpoint that is set for a service
// and is not AWS's: what is behind it has resources of its own, whatever their names.
// It returns "" for AWS's endpoints and for none.
func OtherEndpoint(endpoint *string) string {
	if endpoint == nil {
		return ""
	}
	u, err := url.Parse(*endpoint)
	if err != nil {
		return ""
	}
	host := strings.ToLower(u.Hostname())
	for _, domain := range awsDomains {
		if host == domain || strings.HasSuffix(host, "."+domain) {
			return ""
		}
	}
	return strings.ToLower(u.Scheme + "://" + u.Host)
}
