package main

import (
	"os"
	"testing"

	"example.com/grpc-health-http/test/healthtest"
)

func TestMain(m *testing.M) { os.Exit(healthtest.RunMany(m)) }
