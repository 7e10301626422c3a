mock_provider "aws" {
  source = "../../../mocks/aws"
}

variables {
  package = "main.tf" # any file: nothing is uploaded
}

run "example" {
  assert {
    condition     = output.function_name == "backend-health" && module.health.function_url == null && module.health.health_check_ids == {}
    error_message = "The example has nothing public."
  }
}
