mock_provider "aws" {
  source = "../../tests/mocks"
}

# lambda.zip is built by whoever deploys; the warning that it is missing comes from the module.
run "applies" {
  variables {
    kong_admin_token_secret_arn = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:kong"
    lambda_zip                  = "main.tf" # any file
  }

  assert {
    condition     = output.log_group == "/kong/audit/kong-audit-relay"
    error_message = "events go to CloudWatch Logs"
  }

  assert {
    condition     = output.lambda_function != null && output.plugin_invoke_policy_arn != null
    error_message = "what the plugin needs"
  }
}
