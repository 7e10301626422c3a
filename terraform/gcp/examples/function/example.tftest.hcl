mock_provider "google" {
  source = "../../../mocks/google"
}

# The zip is made by reading, which a mock of the root's providers does not reach.
override_data {
  target = module.health.data.archive_file.source[0]
  values = { output_sha256 = "0123456789abcdef" }
}

run "example" {
  assert {
    condition     = output.uri == "https://grpc-health-abc123-ew.a.run.app" && toset(keys(module.health.uptime_check_ids)) == toset(["echo.EchoServer", "quiz.QuizServer"])
    error_message = "The example checks both services."
  }
}
