// Package kong holds what an operator adds to Kong. Its tests keep the files in step with each other.
package kong

import _ "embed"

// Declaration is kong.yml: the loopback Service, its Route and the plugin.
//
//go:embed kong.yml
var Declaration string
