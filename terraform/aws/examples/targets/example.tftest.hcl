mock_provider "aws" {
  source = "../../../mocks/aws"
}

variables {
  package = "main.tf" # any file: nothing is uploaded
}

run "example" {
  assert {
    condition     = output.function_name == "fleet-health"
    error_message = "The example checks many servers."
  }
}
