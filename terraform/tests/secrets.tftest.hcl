# No secret in the environment, none in what Terraform stores.

mock_provider "aws" {
  source = "./tests/mocks"
}

run "environment_holds_arns" {
  assert {
    condition = aws_lambda_function.relay[0].environment[0].variables == tomap({
      KONG_ADMIN_API                  = "https://kong.internal:8444"
      KONG_SUPERADMIN                 = "true"
      KONG_ADMIN_TOKEN_SECRET_ARN     = "arn:aws:secretsmanager:us-east-1:123456789012:secret:kong-token"
      REDIS_HOST                      = "master.ledger.cache.amazonaws.com:6379"
      REDIS_DB                        = "0"
      REDIS_USERNAME                  = "relay"
      REDIS_PASSWORD_SECRET_ARN       = "arn:aws:secretsmanager:us-east-1:123456789012:secret:generated"
      RELAY_REDIS_TLS                 = "true"
      RELAY_SOURCE                    = "kong"
      RELAY_RECORD_TTL                = "2592000"
      RELAY_DESTINATION               = "cloudtrail"
      RELAY_TRIGGER_SECRET_SECRET_ARN = "arn:aws:secretsmanager:us-east-1:123456789012:secret:generated"
      CHANNEL_ARN                     = "arn:aws:cloudtrail:us-east-1:123456789012:channel/c"
      REGION                          = "us-east-1"
    })
    error_message = "the whole environment: ARNs of secrets, and no secret"
  }

  assert {
    condition     = aws_secretsmanager_secret_version.kong_admin_token[0].secret_string == null && aws_secretsmanager_secret_version.kong_admin_token[0].secret_string_wo_version == 1
    error_message = "the token goes by the write-only argument"
  }

  assert {
    condition     = aws_elasticache_replication_group.ledger[0].auth_token == null
    error_message = "no password of the ledger in the state"
  }

  assert {
    condition     = jsondecode(aws_cloudformation_stack.ledger_user.template_body).Resources.User.Properties.AuthenticationMode.Passwords[0]["Fn::Sub"] == "{{resolve:secretsmanager:$${Password}:SecretString}}"
    error_message = "CloudFormation resolves the password, Terraform never sees it"
  }

  assert {
    condition     = jsondecode(aws_cloudformation_stack.trigger_secret[0].template_body).Resources.Random.Properties.GenerateSecretString == { PasswordLength = 44, ExcludePunctuation = true } && jsondecode(aws_cloudformation_stack.trigger_secret[0].template_body).Resources.Secret.Properties.SecretString["Fn::Sub"] == "whsec_{{resolve:secretsmanager:$${Random}:SecretString}}"
    error_message = "the trigger secret is generated: whsec_ and base64 of 33 bytes"
  }
}

run "secrets_made_elsewhere" {
  variables {
    lambda_env = {
      KONG_ADMIN_API   = "https://kong.internal:8444"
      KONG_SUPERADMIN  = true
      KONG_ADMIN_TOKEN = ""
      KONG_ROOT_CA     = "-----BEGIN CERTIFICATE-----"
      REDIS_DB         = "0"
      CHANNEL_ARN      = ""
    }
    kong_admin_token_secret_arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:mine"
    trigger_secret_secret_arn   = "arn:aws:secretsmanager:us-east-1:123456789012:secret:trigger"
    relay_env                   = { RELAY_EVENT_HOOKS_SECRET_SECRET_ARN = "arn:aws:secretsmanager:us-east-1:123456789012:secret:hooks", RELAY_LOG_LEVEL = "warn" }
  }

  assert {
    condition     = length(aws_secretsmanager_secret.kong_admin_token) == 0 && length(aws_cloudformation_stack.trigger_secret) == 0
    error_message = "no second copy"
  }

  assert {
    condition = toset(jsondecode(aws_iam_role_policy.relay.policy).Statement[1].Resource) == toset([for name in ["mine", "trigger", "hooks", "generated"] : "arn:aws:secretsmanager:us-east-1:123456789012:secret:${name}"])

    error_message = "the relay may read exactly those"
  }

  assert {
    condition     = aws_lambda_function.relay[0].environment[0].variables["KONG_ROOT_CA"] == "-----BEGIN CERTIFICATE-----" && aws_lambda_function.relay[0].environment[0].variables["RELAY_LOG_LEVEL"] == "warn"
    error_message = "a CA and further settings arrive"
  }
}

run "a_key_of_a_json_secret" {
  variables {
    lambda_env = {
      KONG_ADMIN_API  = "https://kong.internal:8444"
      KONG_SUPERADMIN = true
    }
    kong_admin_token_secret_arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:mine#token"
    trigger_secret_secret_arn   = "arn:aws:secretsmanager:us-east-1:123456789012:secret:mine#trigger"
    relay_env                   = { RELAY_EVENT_HOOKS_SECRET_SECRET_ARN = "arn:aws:secretsmanager:us-east-1:123456789012:secret:hooks#secret" }
  }

  assert {
    condition     = toset(jsondecode(aws_iam_role_policy.relay.policy).Statement[1].Resource) == toset([for name in ["mine", "hooks", "generated"] : "arn:aws:secretsmanager:us-east-1:123456789012:secret:${name}"]) && length(jsondecode(aws_iam_role_policy.relay.policy).Statement[1].Resource) == 3
    error_message = "a policy names the secret: with #key it would match none"
  }

  assert {
    condition     = aws_lambda_function.relay[0].environment[0].variables["KONG_ADMIN_TOKEN_SECRET_ARN"] == "arn:aws:secretsmanager:us-east-1:123456789012:secret:mine#token"
    error_message = "the relay gets the key"
  }
}

run "secret_refresh_refused" {
  command         = plan
  expect_failures = [var.relay_env]

  variables {
    relay_env = { RELAY_SECRET_REFRESH = "1h" }
  }
}

run "what_the_module_sets_refused" {
  command         = plan
  expect_failures = [var.relay_env]

  variables {
    relay_env = { RELAY_SOURCE = "other" }
  }
}

run "too_much_environment_refused" {
  command         = plan
  expect_failures = [aws_lambda_function.relay]

  variables {
    lambda_env = {
      KONG_ADMIN_API  = "https://kong.internal:8444"
      KONG_SUPERADMIN = false
      KONG_ROOT_CA    = join("", ["-----BEGIN CERTIFICATE-----\n", join("\n", [for i in range(44) : "MIIFazCCA1OgAwIBAgIRAIIQz7DSQONZRGPgu2OCiwAwDQYJKoZIhvcNAQELBQAw"]), "\n-----END CERTIFICATE-----\n"])
    }
  }
}

run "a_certificate_fits" {
  command = plan

  variables {
    lambda_env = {
      KONG_ADMIN_API  = "https://kong.internal:8444"
      KONG_SUPERADMIN = false
      KONG_ROOT_CA    = join("", ["-----BEGIN CERTIFICATE-----\n", join("\n", [for i in range(30) : "MIIFazCCA1OgAwIBAgIRAIIQz7DSQONZRGPgu2OCiwAwDQYJKoZIhvcNAQELBQAw"]), "\n-----END CERTIFICATE-----\n"])
    }
  }

  assert {
    condition     = length(aws_lambda_function.relay) == 1
    error_message = "one of RSA 4096 is 2 KB"
  }
}

run "plain_secret_refused" {
  command         = plan
  expect_failures = [var.relay_env]

  variables {
    relay_env = { RELAY_TRIGGER_SECRET = "whsec_plain" }
  }
}

run "url_with_password_refused" {
  command         = plan
  expect_failures = [var.lambda_env]

  variables {
    lambda_env = {
      KONG_ADMIN_API   = "https://admin:pass@kong.internal:8444"
      KONG_SUPERADMIN  = false
      KONG_ADMIN_TOKEN = ""
      KONG_ROOT_CA     = ""
      REDIS_DB         = "0"
      CHANNEL_ARN      = ""
    }
  }
}

run "token_missing" {
  command         = plan
  expect_failures = [check.token]

  variables {
    lambda_env = {
      KONG_ADMIN_API   = "https://kong.internal:8444"
      KONG_SUPERADMIN  = true
      KONG_ADMIN_TOKEN = ""
      KONG_ROOT_CA     = ""
      REDIS_DB         = "0"
      CHANNEL_ARN      = ""
    }
  }
}
