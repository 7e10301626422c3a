mock_provider "google" {
  source = "../../../mocks/google"
}

run "example" {
  assert {
    condition     = output.uri == "https://grpc-health-abc123-ew.a.run.app" && module.health.uptime_check_ids == {}
    error_message = "The example checks on a schedule."
  }
}
