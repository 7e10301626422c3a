//go:build unix

package main

import (
	"os"
	"os/signal"
	"syscall"
)

// notifyToggle sends SIGUSR1 to toggles.
func notifyToggle(toggles chan<- os.Signal) { signal.Notify(toggles, syscall.SIGUSR1) }
