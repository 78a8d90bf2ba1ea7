package main

import (
	"context"
	"fmt"
	"strings"
)

// allGroups returns every group, and what ends the servers that they need. ctx must have a deadline, as that of a request.
func allGroups(ctx context.Context) (groups []group, done func(), err error) {
	groups = append(groups, retryGroups(ctx)...)
	groups = append(groups, delayGroup())
	groups = append(groups, breakerGroups()...)
	groups = append(groups, budgetGroups()...)
	groups = append(groups, combinedGroup(ctx))
	layers, closeLayers, err := layerGroups(ctx)
	if err != nil {
		return nil, nil, err
	}
	servers, closeServers, err := serverGroups(ctx)
	if err != nil {
		closeLayers()
		return nil, nil, err
	}
	groups = append(append(groups, layers...), servers...)
	return groups, func() { closeLayers(); closeServers() }, nil
}

// selected returns the groups whose titles hold text.
func selected(groups []group, text string) (list []group, err error) {
	for _, g := range groups {
		if strings.Contains(g.title, text) {
			list = append(list, g)
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("no group has %q in its title", text)
	}
	return list, nil
}
