//go:build !unix

package main

import "os"

// notifyToggle does nothing: this system has no SIGUSR1.
func notifyToggle(chan<- os.Signal) {}
