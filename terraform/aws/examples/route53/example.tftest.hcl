mock_provider "aws" {
  source = "../../../mocks/aws"
}

variables {
  package = "main.tf" # any file: nothing is uploaded
}

run "example" {
  assert {
    condition     = output.health_check_id == "0123abcd-01ab-01ab-01ab-0123456789ab" && module.health.function_url != null
    error_message = "The example has a health check."
  }
}
