mock_provider "aws" {
  source = "../../tests/mocks"
}

run "applies" {
  variables {
    kong_root_ca = "-----BEGIN CERTIFICATE-----"
    lambda_zip   = "main.tf" # any file
  }

  assert {
    condition     = output.lake_lambda_function != null && startswith(output.logs_relay_url, "https://") && output.logs_trigger_secret_arn != null
    error_message = "what the two plugins need"
  }
}
