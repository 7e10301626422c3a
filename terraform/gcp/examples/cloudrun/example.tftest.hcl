mock_provider "google" {
  source = "../../../mocks/google"
}

run "example" {
  assert {
    condition     = output.uri == "https://grpc-health-abc123-ew.a.run.app" && toset(keys(module.health.uptime_check_ids)) == toset(["echo.EchoServer"])
    error_message = "The example checks the service."
  }
}
