// Allocator asks kube-scheduler's own allocator, one question a line: for a cluster's slices, classes and claims, what
// do these wanted claims get on that node? It answers with the allocations, with null when they do not fit, or with
// the error that ends the scheduling of their pod.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	corev1 "k8s.io/api/core/v1"
	resourceapi "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/dynamic-resource-allocation/cel"
	"k8s.io/dynamic-resource-allocation/structured"
)

type question struct {
	Slices  []*resourceapi.ResourceSlice `json:"slices"`
	Classes classes                      `json:"classes"`
	Claims  []*resourceapi.ResourceClaim `json:"claims"`
	Wanted  []*resourceapi.ResourceClaim `json:"wanted"`
	Node    *corev1.Node                 `json:"node"`
}

type answer struct {
	Allocations []resourceapi.AllocationResult `json:"allocations"`
	Error       string                         `json:"error,omitempty"`
}

// What is on by default from Kubernetes 1.36 on.
var features = structured.Features{
	AdminAccess:            true,
	ConsumableCapacity:     true,
	DeviceBindingAndStatus: true,
	DeviceTaints:           true,
	PartitionableDevices:   true,
	PrioritizedList:        true,
}

type classes []*resourceapi.DeviceClass

func (known classes) List() ([]*resourceapi.DeviceClass, error) { return known, nil }

func (known classes) Get(name string) (*resourceapi.DeviceClass, error) {
	for _, class := range known {
		if class.Name == name {
			return class, nil
		}
	}
	return nil, fmt.Errorf("no DeviceClass %s", name)
}

// allocated is what pkg/scheduler/framework/plugins/dynamicresources/allocateddevices.go makes of the claims.
func allocated(claims []*resourceapi.ResourceClaim) structured.AllocatedState {
	state := structured.AllocatedState{
		AllocatedDevices:         sets.New[structured.DeviceID](),
		AllocatedSharedDeviceIDs: sets.New[structured.SharedDeviceID](),
		AggregatedCapacity:       structured.NewConsumedCapacityCollection(),
	}
	for _, claim := range claims {
		if claim.Status.Allocation == nil {
			continue
		}
		for _, result := range claim.Status.Allocation.Devices.Results {
			device := structured.MakeDeviceID(result.Driver, result.Pool, result.Device)
			switch {
			case result.AdminAccess != nil && *result.AdminAccess:
			case result.ShareID == nil:
				state.AllocatedDevices.Insert(device)
			default:
				state.AllocatedSharedDeviceIDs.Insert(structured.MakeSharedDeviceID(device, result.ShareID))
				if result.ConsumedCapacity != nil {
					state.AggregatedCapacity.Insert(structured.NewDeviceConsumedCapacity(device, result.ConsumedCapacity))
				}
			}
		}
	}
	return state
}

func (asked question) answer(ctx context.Context, cache *cel.Cache) answer {
	allocator, err := structured.NewAllocator(ctx, features, allocated(asked.Claims), asked.Classes, asked.Slices, cache)
	if err != nil {
		return answer{Error: err.Error()}
	}
	found, err := allocator.Allocate(ctx, asked.Node, asked.Wanted)
	if err != nil {
		return answer{Error: err.Error()}
	}
	return answer{Allocations: found}
}

func main() {
	questions, answers := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	cache := cel.NewCache(100, cel.Features{EnableConsumableCapacity: true})
	for questions.More() {
		var asked question
		if err := questions.Decode(&asked); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		if err := answers.Encode(asked.answer(context.Background(), cache)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}
