//go:build tools

// Package tools pins what conformance/tools/build builds: the one main package imported here.
package tools

import _ "github.com/docker/compose/v2/cmd"
