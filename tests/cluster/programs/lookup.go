// Go's own resolver: `lookup NAME...` prints a line for each, the addresses or an error.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
)

func main() {
	resolver := net.Resolver{PreferGo: true}
	for _, name := range os.Args[1:] {
		found, err := resolver.LookupHost(context.Background(), name)
		if err != nil {
			fmt.Println(name, "error", err)
			continue
		}
		fmt.Println(name, strings.Join(found, " "))
	}
}
